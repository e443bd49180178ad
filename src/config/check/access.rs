//! Who may log in where: users, CHAP, and the rules by initiator, user and way.

use std::collections::HashMap;
use std::path::Path;

use target_core::iscsi::chap::{Digest, NAME_MAX_BYTES};
use target_core::iscsi::policy::{Auth, Mode, NamePattern, Rule};
use toml::Spanned;

use super::first_at;
use crate::config::file::{AccessWord, AllowTable, AuthWord, ChapTable, DiscoveryTable, UserTable};
use crate::config::problem::Problems;
use crate::config::{LoginPlan, SecretSource, UserPlan};

/// `[[user]]`: names and where their secrets are.
pub(super) fn users(tables: Vec<UserTable>, directory: &Path, problems: &mut Problems) -> Vec<UserPlan> {
    let mut seen = HashMap::new();
    let mut users = Vec::new();
    for table in tables {
        let line = problems.line_of(&table.name.span());
        let name = table.name.into_inner();
        if name.is_empty() || name.len() > NAME_MAX_BYTES || name.chars().any(char::is_control) {
            problems.add(
                line,
                format!("user {name:?}: 1 to {NAME_MAX_BYTES} bytes without control characters"),
            );
        }
        if let Some(first) = first_at(&mut seen, name.clone(), line) {
            problems.add(
                line,
                format!("user {name:?} is there already{first}: give this one another name"),
            );
        }
        let (source, line) = match (table.secret_file, table.secret_credential) {
            (Some(file), None) => {
                let line = problems.line_of(&file.span());
                (SecretSource::File(directory.join(file.into_inner())), line)
            }
            (None, Some(credential)) => {
                let line = problems.line_of(&credential.span());
                let id = credential.into_inner();
                // systemd.exec(5): a credential is a file of this name in one directory.
                if id.is_empty() || id.contains('/') || id == "." || id == ".." {
                    problems.add(
                        line,
                        format!("secret_credential {id:?}: the ID of LoadCredential=, no path"),
                    );
                }
                (SecretSource::Credential(id), line)
            }
            _ => {
                problems.add(
                    line,
                    format!(
                        "user {name:?} needs one of secret_file = \"/path\" (a file that others cannot read) and \
                         secret_credential = \"ID\" (LoadCredential= of systemd)"
                    ),
                );
                continue;
            }
        };
        users.push(UserPlan { name, source, line });
    }
    users
}

/// `[chap]`
pub(super) fn min_digest(table: &ChapTable, problems: &mut Problems) -> Digest {
    let Some(word) = &table.min_digest else {
        return Digest::Md5;
    };
    word.get_ref().parse().unwrap_or_else(|error| {
        problems.add(problems.line_of(&word.span()), format!("min_digest: {error}"));
        Digest::Md5
    })
}

/// What a login needs, as a target or `[discovery]` says.
pub(super) struct Wanted {
    pub(super) auth: Option<Spanned<AuthWord>>,
    pub(super) users: Vec<Spanned<String>>,
    pub(super) mutual: Option<Spanned<String>>,
    /// Where it stands when it says nothing.
    pub(super) line: Option<usize>,
}

/// Checks what a login needs against the users there are.
pub(super) fn login(wanted: Wanted, known: &[UserPlan], problems: &mut Problems) -> LoginPlan {
    let auth = match wanted.auth.as_ref().map(Spanned::get_ref) {
        Some(AuthWord::Chap) => Auth::Chap,
        Some(AuthWord::None) | None => Auth::None,
    };
    let line = match &wanted.auth {
        Some(word) => problems.line_of(&word.span()),
        None => wanted.line,
    };
    let first = wanted.users.first().or(wanted.mutual.as_ref());
    match (auth, first) {
        (Auth::None, Some(first)) => problems.add(
            problems.line_of(&first.span()),
            "users and mutual count only with auth = \"chap\": add that, or remove them",
        ),
        (Auth::Chap, _) if wanted.users.is_empty() => {
            problems.add(
                line,
                "auth = \"chap\" needs to know who may log in: add users = [\"NAME\"]",
            );
        }
        _ => {}
    }
    let mut plan = LoginPlan {
        auth,
        users: Vec::new(),
        mutual: None,
        line,
    };
    for name in wanted.users {
        let line = problems.line_of(&name.span());
        let name = name.into_inner();
        check_known(&name, known, line, problems);
        if plan.users.contains(&name) {
            problems.add(line, format!("user {name:?} is named twice: keep one"));
        } else {
            plan.users.push(name);
        }
    }
    if let Some(name) = wanted.mutual {
        let line = problems.line_of(&name.span());
        let name = name.into_inner();
        check_known(&name, known, line, problems);
        if plan.users.contains(&name) {
            problems.add(
                line,
                format!(
                    "user {name:?} cannot stand for both ends: mutual takes a user of its own, with its own secret"
                ),
            );
        }
        plan.mutual = Some(name);
    }
    plan
}

fn check_known(name: &str, known: &[UserPlan], line: Option<usize>, problems: &mut Problems) {
    if !known.iter().any(|user| user.name == name) {
        problems.add(
            line,
            format!("there is no user {name:?}: add [[user]] with name = {name:?} and secret_file = \"/path\""),
        );
    }
}

/// `[discovery]`
pub(super) fn discovery(
    table: Option<Spanned<DiscoveryTable>>,
    known: &[UserPlan],
    problems: &mut Problems,
) -> LoginPlan {
    let Some(table) = table else {
        return LoginPlan::default();
    };
    let line = problems.line_of(&table.span());
    let table = table.into_inner();
    let wanted = Wanted {
        auth: table.auth,
        users: table.users,
        mutual: table.mutual,
        line,
    };
    login(wanted, known, problems)
}

/// The rules of a target or a LUN. `login` is what the target needs: a rule by CHAP user makes no sense without.
pub(super) fn rules(tables: Vec<Spanned<AllowTable>>, login: &LoginPlan, problems: &mut Problems) -> Vec<Rule> {
    tables
        .into_iter()
        .map(|table| rule(table.into_inner(), login, problems))
        .collect()
}

fn rule(table: AllowTable, login: &LoginPlan, problems: &mut Problems) -> Rule {
    let mut initiators = Vec::new();
    for pattern in table.initiators {
        let line = problems.line_of(&pattern.span());
        let pattern = pattern.into_inner();
        let is_name = |c: char| c.is_alphanumeric() || matches!(c, '-' | '.' | ':' | '*');
        if pattern.is_empty() || !pattern.chars().all(is_name) {
            problems.add(
                line,
                format!("{pattern:?} is no initiator name: letters, digits, '-', '.' and ':', and '*' for any number of them"),
            );
        }
        initiators.push(NamePattern::new(&pattern));
    }
    let mut chap_users = Vec::new();
    for user in table.users {
        let line = problems.line_of(&user.span());
        let user = user.into_inner();
        if login.auth == Auth::None {
            problems.add(
                line,
                format!("user {user:?} can only be known by CHAP: add auth = \"chap\" and users to the target"),
            );
        } else if !login.users.contains(&user) {
            problems.add(
                line,
                format!("user {user:?} may not log in to this target: add the name to its users, or remove it here"),
            );
        }
        chap_users.push(user);
    }
    let tunnel_users = table.tunnel_users.into_iter().map(|user| {
        let line = problems.line_of(&user.span());
        let user = user.into_inner();
        if user.is_empty() || user.contains(':') || user.chars().any(char::is_control) {
            problems.add(line, format!("{user:?} is no Unix user name"));
        }
        user
    });
    Rule {
        initiators,
        chap_users,
        tunnel_users: tunnel_users.collect(),
        mode: match table.access {
            AccessWord::ReadOnly => Mode::ReadOnly,
            AccessWord::ReadWrite => Mode::ReadWrite,
        },
    }
}
