//! farlun: a disk on the other side of the Internet.
fn main() {}
