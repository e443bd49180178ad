//! Whose home, keys and known hosts are used: the user who called, also through sudo.

use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};

/// The person behind this process.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Invoker {
    /// User id.
    pub uid: u32,
    /// Primary group id.
    pub gid: u32,
    /// Login name, when known.
    pub name: Option<String>,
    /// Home directory.
    pub home: PathBuf,
    /// This process is root on behalf of that user: files made are given to them, and their files are not trusted
    /// further than they could go themselves.
    pub through_sudo: bool,
}

impl Invoker {
    /// Looks at the effective user, the environment and the user database. `None` when there is no home directory.
    pub fn current() -> Option<Self> {
        let var = |name: &str| std::env::var_os(name);
        let euid = rustix::process::geteuid().as_raw();
        let egid = rustix::process::getegid().as_raw();
        Self::find(euid, egid, var, passwd_line)
    }

    fn find(
        euid: u32,
        egid: u32,
        var: impl Fn(&str) -> Option<OsString>,
        passwd: impl Fn(u32) -> Option<Vec<u8>>,
    ) -> Option<Self> {
        let number = |name: &str| var(name)?.into_string().ok()?.parse::<u32>().ok();
        let sudo = (euid == 0)
            .then(|| number("SUDO_UID"))
            .flatten()
            .filter(|uid| *uid != 0);
        let uid = sudo.unwrap_or(euid);
        let entry = passwd(uid).and_then(|line| Entry::parse(&line));
        if sudo.is_some() {
            let gid = number("SUDO_GID").or(entry.as_ref().map(|entry| entry.gid))?;
            let name = var("SUDO_USER").and_then(|name| name.into_string().ok());
            let (entry_name, home) = entry.map(|entry| (entry.name, entry.home)).unzip();
            return Some(Self {
                uid,
                gid,
                name: name.or(entry_name),
                home: home?,
                through_sudo: true,
            });
        }
        let home = var("HOME").filter(|home| !home.is_empty()).map(PathBuf::from);
        let name = var("USER")
            .and_then(|name| name.into_string().ok())
            .filter(|name| !name.is_empty());
        let (entry_name, entry_home) = entry.map(|entry| (entry.name, entry.home)).unzip();
        Some(Self {
            uid,
            gid: egid,
            name: entry_name.or(name),
            home: home.or(entry_home)?,
            through_sudo: false,
        })
    }

    /// A file under `~/.ssh`.
    pub fn ssh_file(&self, name: impl AsRef<Path>) -> PathBuf {
        self.home.join(".ssh").join(name)
    }
}

/// What is needed of a line of passwd(5).
struct Entry {
    name: String,
    gid: u32,
    home: PathBuf,
}

impl Entry {
    fn parse(line: &[u8]) -> Option<Self> {
        let mut fields = line.trim_ascii_end().split(|byte| *byte == b':');
        let name = String::from_utf8(fields.next()?.to_vec()).ok()?;
        let gid = std::str::from_utf8(fields.nth(2)?).ok()?.parse().ok()?;
        let home = PathBuf::from(OsString::from_vec(fields.nth(1)?.to_vec()));
        home.is_absolute().then_some(Self { name, gid, home })
    }
}

/// The user's line: from the file, or from wherever the system keeps its users.
fn passwd_line(uid: u32) -> Option<Vec<u8>> {
    let wanted = uid.to_string();
    let file = std::fs::read("/etc/passwd").unwrap_or_default();
    let own = file.split(|byte| *byte == b'\n').find(|line| {
        line.split(|byte| *byte == b':')
            .nth(2)
            .is_some_and(|field| field == wanted.as_bytes())
    });
    if let Some(line) = own {
        return Some(line.to_vec());
    }
    let output = std::process::Command::new("getent")
        .args(["passwd", &wanted])
        .output()
        .ok()?;
    output.status.success().then_some(output.stdout)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn passwd(uid: u32) -> Option<Vec<u8>> {
        match uid {
            0 => Some(b"root:x:0:0:root:/root:/bin/bash".to_vec()),
            1000 => Some(b"anna:x:1000:1001:Anna,,,:/home/anna:/bin/bash\n".to_vec()),
            _ => None,
        }
    }

    fn find(euid: u32, env: &[(&str, &str)]) -> Option<Invoker> {
        let var = |name: &str| {
            env.iter()
                .find(|(key, _)| *key == name)
                .map(|(_, value)| OsString::from(value))
        };
        Invoker::find(euid, euid, var, passwd)
    }

    #[test]
    fn sudo_is_the_caller() {
        let env = [
            ("HOME", "/root"),
            ("SUDO_UID", "1000"),
            ("SUDO_GID", "1001"),
            ("SUDO_USER", "anna"),
        ];
        let anna = find(0, &env).unwrap();
        assert_eq!((anna.uid, anna.gid, anna.name.as_deref()), (1000, 1001, Some("anna")));
        assert_eq!(anna.ssh_file("id_rsa"), Path::new("/home/anna/.ssh/id_rsa"));
        assert!(anna.through_sudo);
    }

    #[test]
    fn only_root_can_be_sudo() {
        let env = [("HOME", "/home/anna"), ("SUDO_UID", "0"), ("SUDO_USER", "root")];
        assert!(!find(1000, &env).unwrap().through_sudo);
        assert!(!find(0, &env).unwrap().through_sudo, "root through sudo is root");
        assert_eq!(
            find(0, &[("SUDO_UID", "4242"), ("SUDO_GID", "1"), ("HOME", "/root")]),
            None,
            "nobody's home"
        );
    }

    #[test]
    fn without_sudo() {
        let anna = find(1000, &[]).unwrap();
        assert_eq!(
            (anna.home.to_str(), anna.name.as_deref()),
            (Some("/home/anna"), Some("anna"))
        );
        assert_eq!(
            find(4242, &[("HOME", "/tmp/x"), ("USER", "bob")])
                .unwrap()
                .name
                .as_deref(),
            Some("bob")
        );
        assert_eq!(find(4242, &[("HOME", "")]), None);
    }
}
