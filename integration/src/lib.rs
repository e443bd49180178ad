//! Small parts from which the tests in `tests/` and the benchmark build a world of their own: network namespaces, a
//! guest with a real Linux kernel, stock `sshd`, a target, a packet capture.
//!
//! Everything started here dies with the value that stands for it, and with the thread that made it.
#![forbid(unsafe_code)]

pub mod bench;
pub mod capture;
pub mod conformance;
pub mod guest;
pub mod klog;
pub mod netns;
pub mod packet;
pub mod paths;
pub mod process;
pub mod sshd;
pub mod story;
pub mod target;
pub mod traces;
pub mod tunnelled;
