//! Logging in with CHAP, as far as the other side wants it.

use std::path::PathBuf;

use anyhow::anyhow;
use clap::Args;
use initiator::{ChapOptions, Error, MutualChap, Session};
use tokio::net::TcpStream;

use super::{ProbeArgs, log_in};
use crate::config::read_secret;
use crate::exit::{Exit, Failure};

/// Who we are, and who they have to be.
#[derive(Debug, Args)]
pub(super) struct ChapArgs {
    /// Name to log in with by CHAP
    #[arg(long, value_name = "NAME", requires = "secret_file")]
    user: Option<String>,
    /// File with the secret of that name; nobody else may read it
    #[arg(long, value_name = "FILE")]
    secret_file: Option<PathBuf>,
    /// Name that the target has to prove in turn
    #[arg(long, value_name = "NAME", requires = "mutual_secret_file")]
    mutual_user: Option<String>,
    /// File with the secret that the target has to know
    #[arg(long, value_name = "FILE", requires = "secret_file")]
    mutual_secret_file: Option<PathBuf>,
}

impl ChapArgs {
    /// What to log in with, if anything; the name may stand in the address.
    pub(super) fn options(&self, user: Option<&str>) -> Result<Option<ChapOptions>, Failure> {
        let usage = |text: String| Failure::new(Exit::Usage, anyhow!(text));
        let Some(file) = &self.secret_file else {
            return match user {
                Some(user) => Err(usage(format!("user {user:?} needs a secret: --secret-file FILE"))),
                None => Ok(None),
            };
        };
        let user = self.user.as_deref().or(user);
        let user = user.ok_or_else(|| usage("a secret belongs to a user: --user NAME".to_owned()))?;
        let mut options = ChapOptions::new(user, read_secret(file).map_err(usage)?);
        if let Some(file) = &self.mutual_secret_file {
            options.mutual = Some(MutualChap {
                name: self.mutual_user.clone(),
                secret: read_secret(file).map_err(usage)?,
            });
        }
        Ok(Some(options))
    }
}

/// Logs in to discovery: mostly that takes no secret.
pub(super) async fn discovery(args: &ProbeArgs, chap: Option<&ChapOptions>) -> Result<Session<TcpStream>, Error> {
    // Who guards a target by CHAP both ways seldom does so for discovery.
    let chap = chap.map(|chap| ChapOptions {
        mutual: None,
        or_none: true,
        ..chap.clone()
    });
    log_in(&args.url, &args.initiator, None, chap.as_ref(), args.timeout_ms).await
}

/// Logs in to a target. Whoever has given a secret that the target has to know does not take it without.
pub(super) async fn normal(
    args: &ProbeArgs,
    target: &str,
    chap: Option<&ChapOptions>,
) -> Result<Session<TcpStream>, Error> {
    let chap = chap.map(|chap| ChapOptions {
        or_none: chap.mutual.is_none(),
        ..chap.clone()
    });
    log_in(&args.url, &args.initiator, Some(target), chap.as_ref(), args.timeout_ms).await
}
