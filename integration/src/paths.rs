//! Where things are: the repository, the unpacked guest kernel, the binaries. What is missing is an error that says how
//! to get it: a test without its tools fails, it does not skip.

use std::path::{Path, PathBuf};

use anyhow::{Result, bail};

const HINT: &str = "run integration/scripts/setup";

/// The folder of this crate.
pub fn here() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// The unpacked `user-mode-linux` package; `lib/modules` in it is where `modprobe -d` looks.
pub fn uml() -> Result<PathBuf> {
    Ok(existing(here().join(".cache/uml/lib/modules"))?
        .ancestors()
        .nth(2)
        .expect("joined above")
        .to_path_buf())
}

/// The fio with the libiscsi engine that `setup --bench` builds.
pub fn fio() -> Result<PathBuf> {
    let fio = here().join(".cache/fio/fio");
    if fio.exists() {
        Ok(fio)
    } else {
        bail!("{} is missing: {HINT} --bench", fio.display())
    }
}

/// A script that runs in the guest, from `guest/`.
pub fn guest_script(name: &str) -> Result<PathBuf> {
    existing(here().join("guest").join(name))
}

/// The farlun under test: `$FARLUN_BIN`, or the release build in the workspace.
pub fn farlun() -> Result<PathBuf> {
    let bin = match std::env::var_os("FARLUN_BIN") {
        Some(bin) => PathBuf::from(bin),
        None => here().join("../target/release/farlun"),
    };
    match bin.canonicalize() {
        Ok(bin) => Ok(bin),
        Err(e) => bail!("{}: {e}: run `cargo build --release`, or set FARLUN_BIN", bin.display()),
    }
}

/// A program of the distribution, by name.
pub fn tool(name: &str) -> Result<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let sbin = ["/usr/sbin", "/sbin"].map(PathBuf::from);
    let found = std::env::split_paths(&path)
        .chain(sbin)
        .map(|dir| dir.join(name))
        .find(|file| file.is_file());
    match found {
        Some(file) => Ok(file),
        None => bail!("{name} is missing: {HINT}"),
    }
}

fn existing(path: PathBuf) -> Result<PathBuf> {
    if path.exists() {
        Ok(path)
    } else {
        bail!("{} is missing: {HINT}", path.display())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_missing_tool_is_an_error_that_says_what_to_run() {
        let error = tool("no-such-tool-of-farlun").unwrap_err().to_string();
        assert_eq!(
            error,
            "no-such-tool-of-farlun is missing: run integration/scripts/setup"
        );
        assert!(tool("sh").is_ok());
    }
}
