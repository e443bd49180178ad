//! Tests that use real initiators, real kernels and real sshd; the benchmarks.
