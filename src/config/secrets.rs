//! The secrets of users: read from files that others cannot read, or from systemd's credentials. What is said about
//! them never shows one.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Read;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use target_core::iscsi::chap::Secret;
use target_core::iscsi::policy::Credentials;

use super::problem::Problems;
use super::{LoginPlan, Plan, SecretSource, UserPlan};

/// Longest file that is read for a secret, in bytes.
const FILE_MAX_BYTES: u64 = 4096;
/// Rights of others (stat(2)): none of them may be there.
const OTHERS: u32 = 0o007;

/// Secrets by the name of the user.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Secrets(BTreeMap<String, Secret>);

/// Reads the secret of every user. What cannot be read goes to `problems`.
pub(crate) fn load(plan: &Plan, problems: &mut Problems) -> Secrets {
    let credentials = std::env::var_os("CREDENTIALS_DIRECTORY").map(PathBuf::from);
    load_from(plan, credentials.as_deref(), problems)
}

fn load_from(plan: &Plan, credentials: Option<&Path>, problems: &mut Problems) -> Secrets {
    let mut secrets = BTreeMap::new();
    for user in &plan.users {
        match read(user, credentials) {
            Ok(secret) => {
                secrets.insert(user.name.clone(), secret);
            }
            Err(text) => problems.add(user.line, format!("user {:?}: {text}", user.name)),
        }
    }
    let secrets = Secrets(secrets);
    each_direction_has_its_own(plan, &secrets, problems);
    secrets
}

/// What one target proves itself by is no user's secret at another either: whoever is asked for that user's response
/// could have the first target compute it (RFC 7143 §9.2.1).
fn each_direction_has_its_own(plan: &Plan, secrets: &Secrets, problems: &mut Problems) {
    for (own, place) in logins(plan) {
        let Some(mutual) = own.mutual.as_ref().and_then(|name| Some((name, secrets.0.get(name)?))) else {
            continue;
        };
        // One answer for one place, the nearest first.
        let same = std::iter::once((own, place.clone()))
            .chain(logins(plan))
            .find_map(|(other, at)| {
                let is_same = |user: &&String| secrets.0.get(*user) == Some(mutual.1);
                Some((other.users.iter().find(is_same)?, at))
            });
        if let Some((user, at)) = same {
            let at = if at == place {
                String::new()
            } else {
                format!(", which {at} lets in,")
            };
            problems.add(
                own.line,
                format!(
                    "{place}: users {user:?}{at} and {:?} have the same secret: each direction needs its own",
                    mutual.0
                ),
            );
        }
    }
}

fn logins(plan: &Plan) -> impl Iterator<Item = (&LoginPlan, String)> {
    let targets = plan.targets.iter();
    targets
        .map(|target| (&target.login, target.name.clone()))
        .chain([(&plan.discovery, "discovery".to_owned())])
}

fn read(user: &UserPlan, credentials: Option<&Path>) -> Result<Secret, String> {
    let path = match &user.source {
        SecretSource::File(path) => path.clone(),
        SecretSource::Credential(id) => credentials
            .ok_or_else(|| {
                format!("there are no credentials: start farlun by systemd, with LoadCredential={id}:/path in the unit")
            })?
            .join(id),
    };
    read_secret(&path)
}

/// The secret in a file that others cannot read.
///
/// # Errors
/// What is wrong with it, in words that do not show it.
pub(crate) fn read_secret(path: &Path) -> Result<Secret, String> {
    let shown = path.display();
    let cannot = |error: std::io::Error| format!("cannot read the secret in {shown}: {error}");
    let file = File::open(path).map_err(cannot)?;
    let found = file.metadata().map_err(cannot)?;
    if !found.is_file() {
        return Err(format!("{shown} is no regular file"));
    }
    if found.mode() & OTHERS != 0 {
        return Err(format!("{shown} can be read by other users: chmod 600 {shown}"));
    }
    let mut bytes = Vec::new();
    file.take(FILE_MAX_BYTES).read_to_end(&mut bytes).map_err(cannot)?;
    // What an editor or echo puts at the end is no part of it.
    if bytes.ends_with(b"\n") {
        bytes.pop();
        if bytes.ends_with(b"\r") {
            bytes.pop();
        }
    }
    Secret::new(bytes).map_err(|error| format!("{shown}: {error}"))
}

impl Secrets {
    /// What a target or discovery needs to know of them.
    pub(crate) fn credentials(&self, plan: &Plan, login: &LoginPlan) -> Credentials {
        let of = |name: &String| self.0.get(name).map(|secret| (name.clone(), secret.clone()));
        Credentials {
            users: login.users.iter().filter_map(of).collect(),
            mutual: login.mutual.as_ref().and_then(of),
            min_digest: plan.min_digest,
        }
    }

    /// Whether a user has another secret there.
    pub(crate) fn differs(&self, other: &Self, user: &str) -> bool {
        self.0.get(user) != other.0.get(user)
    }
}

#[cfg(test)]
mod tests {
    use std::fs::Permissions;
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    const TEXT: &str = r#"
        [[user]]
        name = "anna"
        secret_file = "anna.secret"
        [[user]]
        name = "disk"
        secret_credential = "disk"
        [[target]]
        name = "iqn.2026-11.com.example:disk"
        auth = "chap"
        users = ["anna"]
        mutual = "disk"
        [[portal]]
        listen = "127.0.0.1"
    "#;

    fn write(path: &Path, text: &str, mode: u32) {
        std::fs::write(path, text).unwrap();
        std::fs::set_permissions(path, Permissions::from_mode(mode)).unwrap();
    }

    #[test]
    fn secrets_are_read_and_never_shown() {
        let home = tempfile::tempdir().unwrap();
        let (plan, parsed) = super::super::parse(Some("farlun.toml"), TEXT, home.path()).unwrap();
        assert!(parsed.is_empty(), "{parsed}");
        let load = |credentials: bool| {
            let mut problems = Problems::of_file("farlun.toml", TEXT);
            let secrets = load_from(&plan, credentials.then_some(home.path()), &mut problems);
            (secrets, problems.to_string())
        };
        let (anna, disk) = (home.path().join("anna.secret"), home.path().join("disk"));
        write(&anna, "a secret of hers\n", 0o600);
        write(&disk, "a secret of ours", 0o400);
        let (secrets, said) = load(true);
        assert_eq!(said, "");
        let credentials = secrets.credentials(&plan, &plan.targets[0].login);
        assert_eq!(
            credentials.users.get("anna"),
            Some(&Secret::new("a secret of hers").unwrap())
        );
        assert_eq!(
            credentials.mutual.as_ref().unwrap().1,
            Secret::new("a secret of ours").unwrap()
        );
        let shown = format!("{secrets:?} {credentials:?} {plan:?}");
        assert!(!shown.contains("of hers") && !shown.contains("of ours"), "{shown}");
        assert!(secrets.credentials(&plan, &plan.discovery).users.is_empty());

        assert!(
            load(false)
                .1
                .contains("farlun.toml:7: user \"disk\": there are no credentials")
        );
        for (text, mode, expected) in [
            ("a secret of hers", 0o644, "chmod 600"),
            ("a secret of hers", 0o602, "chmod 600"),
            ("short", 0o600, "at least 12"),
            ("a secret of ours\r\n", 0o600, "have the same secret"),
        ] {
            write(&anna, text, mode);
            let (_, said) = load(true);
            assert!(
                said.contains(expected) && said.starts_with("farlun.toml:"),
                "{expected}: {said}"
            );
            assert!(!said.contains(text.trim_end()), "{said}");
        }
        std::fs::remove_file(&anna).unwrap();
        assert!(load(true).1.contains("cannot read the secret"));
    }

    #[test]
    fn what_one_target_proves_itself_by_lets_nobody_in_anywhere() {
        let home = tempfile::tempdir().unwrap();
        for name in ["anna", "disk", "bert"] {
            write(&home.path().join(name), &format!("the secret of {name}"), 0o600);
        }
        let user = |name: &str| format!("[[user]]\nname = \"{name}\"\nsecret_file = \"{name}\"\n");
        let users = user("anna") + &user("disk") + &user("bert");
        let of = |more: &str| {
            let text = format!(
                "{users}[[target]]\nname = \"iqn.2026-11.com.example:a\"\nauth = \"chap\"\nusers = [\"anna\"]\n\
                 mutual = \"disk\"\n{more}\n[[portal]]\nlisten = \"127.0.0.1\"\n"
            );
            let (plan, parsed) = super::super::parse(Some("f"), &text, home.path()).unwrap();
            assert!(parsed.is_empty(), "{parsed}");
            let mut problems = Problems::of_file("f", &text);
            load_from(&plan, None, &mut problems);
            problems.to_string()
        };
        let other = |user: &str| {
            of(&format!(
                "[[target]]\nname = \"iqn.2026-11.com.example:b\"\nauth = \"chap\"\nusers = [\"{user}\"]"
            ))
        };
        assert_eq!(other("bert"), "");
        // Two targets may prove themselves by one secret, and one user may log in to both.
        assert_eq!(other("anna\"]\nmutual = \"disk\" # [\""), "");
        let said = other("disk");
        assert!(said.contains("which iqn.2026-11.com.example:b lets in"), "{said}");
        write(&home.path().join("bert"), "the secret of disk", 0o600);
        assert!(other("bert").contains("have the same secret"));
        assert_eq!(other("anna"), "", "nobody logs in as bert");
        let said = of("[discovery]\nauth = \"chap\"\nusers = [\"bert\"]");
        assert!(said.contains("which discovery lets in"), "{said}");
    }
}
