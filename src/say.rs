//! What the command has to say on standard output: line by line, and no matter whether anyone still reads it.

use std::fmt;
use std::io::Write;

/// Prints one line. A reader that has gone (`farlun serve | head`) is no reason to stop serving.
pub(crate) fn line(text: fmt::Arguments<'_>) {
    let mut out = std::io::stdout().lock();
    // The only thing that can go wrong is that nobody listens.
    let _ = out.write_fmt(text);
    let _ = out.write_all(b"\n");
    let _ = out.flush();
}

/// `println!` that does not mind a closed pipe.
macro_rules! say {
    () => { $crate::say::line(format_args!("")) };
    ($($arg:tt)*) => { $crate::say::line(format_args!($($arg)*)) };
}
pub(crate) use say;
