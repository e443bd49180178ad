//! `iscsi://[user@]host[:port][/iqn[/lun]]`.

use std::fmt;
use std::net::Ipv6Addr;
use std::str::FromStr;

use thiserror::Error;

/// The port IANA assigned to iSCSI (RFC 7143 §13.8: the default of TargetAddress).
pub const DEFAULT_PORT: u16 = 3260;

/// Longest iSCSI name (RFC 7143 §4.2.7.1).
const MAX_NAME_BYTES: usize = 223;

/// Where a target or one of its LUNs is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Url {
    /// User name for CHAP. The secret never stands in an address: it would be in logs and lists of processes.
    pub user: Option<String>,
    /// Host name or address, without brackets.
    pub host: String,
    /// TCP port.
    pub port: u16,
    /// iSCSI name of the target; without one, discovery is meant.
    pub target: Option<String>,
    /// Logical unit number.
    pub lun: Option<u16>,
}

/// Why a text is not such a URL.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum UrlError {
    /// Something else than iscsi://.
    #[error("it must begin with iscsi://")]
    Scheme,
    /// More than a user name before the `@`.
    #[error("only a user name may stand before the @; a secret does not belong into an address")]
    Credentials,
    /// No host.
    #[error("the host is missing")]
    NoHost,
    /// A bracket that does not close, or not an IPv6 address in it.
    #[error("{0:?} is not an IPv6 address in brackets")]
    BadIpv6(String),
    /// An IPv6 address needs brackets.
    #[error("write an IPv6 address in brackets: [{0}]")]
    BareIpv6(String),
    /// White space and the like in the host.
    #[error("{0:?} is not a host name")]
    BadHost(String),
    /// Not a port number.
    #[error("{0:?} is not a port (1 to 65535)")]
    BadPort(String),
    /// Not an iSCSI name.
    #[error("{0:?} is not an iSCSI name: it begins with iqn., eui. or naa. and has at most 223 characters")]
    BadName(String),
    /// Not a logical unit number.
    #[error("{0:?} is not a logical unit number (0 to 16383)")]
    BadLun(String),
    /// More behind the logical unit.
    #[error("nothing may follow the logical unit, but there is {0:?}")]
    TooMuch(String),
}

/// Whether a text has the form of an iSCSI name (RFC 7143 §4.2.7.2: iqn., eui. or naa., no white space or control
/// characters, at most 223 bytes).
pub(crate) fn is_iscsi_name(name: &str) -> bool {
    ["iqn.", "eui.", "naa."]
        .iter()
        .any(|kind| name.starts_with(kind) && name.len() > kind.len())
        && name.len() <= MAX_NAME_BYTES
        && !name.contains(|c: char| c.is_whitespace() || c.is_control() || c == '/')
}

impl FromStr for Url {
    type Err = UrlError;

    fn from_str(text: &str) -> Result<Url, UrlError> {
        let scheme = text
            .get(..8)
            .filter(|scheme| scheme.eq_ignore_ascii_case("iscsi://"))
            .ok_or(UrlError::Scheme)?;
        let rest = &text[scheme.len()..];
        let (authority, path) = rest.split_once('/').unwrap_or((rest, ""));
        let (user, place) = match authority.rsplit_once('@') {
            Some((user, place)) => (Some(user_name(user)?), place),
            None => (None, authority),
        };
        let (host, port) = authority_parts(place)?;
        let mut parts = path.splitn(3, '/');
        let target = match parts.next() {
            None | Some("") => None,
            Some(name) if is_iscsi_name(name) => Some(name.to_owned()),
            Some(name) => return Err(UrlError::BadName(name.to_owned())),
        };
        let lun = match parts.next() {
            None | Some("") => None,
            Some(number) => match number.parse::<u16>() {
                Ok(lun) if lun < 0x4000 && target.is_some() => Some(lun),
                _ => return Err(UrlError::BadLun(number.to_owned())),
            },
        };
        match parts.next() {
            None | Some("") => Ok(Url {
                user,
                host,
                port,
                target,
                lun,
            }),
            Some(more) => Err(UrlError::TooMuch(more.to_owned())),
        }
    }
}

/// Neither `user:secret` nor libiscsi's `user%secret`.
fn user_name(user: &str) -> Result<String, UrlError> {
    let odd = |c: char| c.is_whitespace() || c.is_control() || ":%@".contains(c);
    if user.is_empty() || user.contains(odd) {
        return Err(UrlError::Credentials);
    }
    Ok(user.to_owned())
}

fn authority_parts(authority: &str) -> Result<(String, u16), UrlError> {
    let (host, port) = if let Some(inside) = authority.strip_prefix('[') {
        let bad = || UrlError::BadIpv6(authority.to_owned());
        let (address, after) = inside.split_once(']').ok_or_else(bad)?;
        // A zone (%eth0) is for the resolver to judge.
        address
            .split('%')
            .next()
            .unwrap_or_default()
            .parse::<Ipv6Addr>()
            .map_err(|_| bad())?;
        let port = match after {
            "" => None,
            _ => Some(after.strip_prefix(':').ok_or_else(bad)?),
        };
        (address, port)
    } else if authority.parse::<Ipv6Addr>().is_ok() {
        return Err(UrlError::BareIpv6(authority.to_owned()));
    } else {
        authority
            .split_once(':')
            .map_or((authority, None), |(host, port)| (host, Some(port)))
    };
    if host.is_empty() {
        return Err(UrlError::NoHost);
    }
    if host.contains(|c: char| c.is_whitespace() || c.is_control() || "?#\\".contains(c)) {
        return Err(UrlError::BadHost(host.to_owned()));
    }
    let port = match port {
        None => DEFAULT_PORT,
        Some(text) => match text.parse::<u16>() {
            Ok(port) if port > 0 && !text.starts_with('+') => port,
            _ => return Err(UrlError::BadPort(text.to_owned())),
        },
    };
    Ok((host.to_owned(), port))
}

impl fmt::Display for Url {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (open, close) = if self.host.contains(':') { ("[", "]") } else { ("", "") };
        f.write_str("iscsi://")?;
        if let Some(user) = &self.user {
            write!(f, "{user}@")?;
        }
        write!(f, "{open}{}{close}:{}", self.host, self.port)?;
        if let Some(target) = &self.target {
            write!(f, "/{target}")?;
            if let Some(lun) = self.lun {
                write!(f, "/{lun}")?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn url(host: &str, port: u16, target: Option<&str>, lun: Option<u16>) -> Url {
        Url {
            user: None,
            host: host.to_owned(),
            port,
            target: target.map(str::to_owned),
            lun,
        }
    }

    #[test]
    fn forms() {
        let iqn = "iqn.2004-10.com.example:disk";
        for (text, expected) in [
            ("iscsi://nas", url("nas", 3260, None, None)),
            ("ISCSI://nas/", url("nas", 3260, None, None)),
            ("iscsi://10.0.0.1:860", url("10.0.0.1", 860, None, None)),
            ("iscsi://[2001:db8::1]", url("2001:db8::1", 3260, None, None)),
            ("iscsi://[fe80::1%eth0]:3261/", url("fe80::1%eth0", 3261, None, None)),
            (
                "iscsi://nas/iqn.2004-10.com.example:disk",
                url("nas", 3260, Some(iqn), None),
            ),
            (
                "iscsi://nas/iqn.2004-10.com.example:disk/",
                url("nas", 3260, Some(iqn), None),
            ),
            (
                "iscsi://[::1]:1/iqn.2004-10.com.example:disk/7",
                url("::1", 1, Some(iqn), Some(7)),
            ),
            (
                "iscsi://nas/iqn.2004-10.com.example:disk/16383/",
                url("nas", 3260, Some(iqn), Some(16383)),
            ),
        ] {
            assert_eq!(text.parse(), Ok(expected.clone()), "{text}");
            assert_eq!(expected.to_string().parse(), Ok(expected), "{text}");
        }
    }

    #[test]
    fn a_user_but_no_secret() {
        let with_user: Url = "iscsi://backup@[::1]:3261/iqn.a/1".parse().unwrap();
        assert_eq!(with_user.user.as_deref(), Some("backup"));
        assert_eq!(
            Url {
                user: None,
                ..with_user.clone()
            },
            url("::1", 3261, Some("iqn.a"), Some(1))
        );
        assert_eq!(with_user.to_string(), "iscsi://backup@[::1]:3261/iqn.a/1");
        for text in [
            "iscsi://me%hunter2@nas",
            "iscsi://me:hunter2@nas",
            "iscsi://@nas",
            "iscsi://a@b@nas",
            "iscsi://a b@nas",
        ] {
            let error = text.parse::<Url>().unwrap_err();
            assert_eq!(error, UrlError::Credentials, "{text}");
            assert!(!error.to_string().contains("hunter2"), "the secret is not repeated");
        }
    }

    #[test]
    fn what_is_wrong_is_said() {
        let own = str::to_owned;
        for (text, error) in [
            ("", UrlError::Scheme),
            ("nas", UrlError::Scheme),
            ("http://nas", UrlError::Scheme),
            ("iscsi:/nas", UrlError::Scheme),
            ("iscsi://", UrlError::NoHost),
            ("iscsi:///iqn.a", UrlError::NoHost),
            ("iscsi://:3260", UrlError::NoHost),
            ("iscsi://2001:db8::1", UrlError::BareIpv6(own("2001:db8::1"))),
            ("iscsi://[2001:db8::1", UrlError::BadIpv6(own("[2001:db8::1"))),
            ("iscsi://[nas]", UrlError::BadIpv6(own("[nas]"))),
            ("iscsi://[::1]3260", UrlError::BadIpv6(own("[::1]3260"))),
            ("iscsi://na s", UrlError::BadHost(own("na s"))),
            ("iscsi://nas:0", UrlError::BadPort(own("0"))),
            ("iscsi://nas:", UrlError::BadPort(own(""))),
            ("iscsi://nas:65536", UrlError::BadPort(own("65536"))),
            ("iscsi://nas/disk", UrlError::BadName(own("disk"))),
            ("iscsi://nas/iqn.", UrlError::BadName(own("iqn."))),
            ("iscsi://nas/iqn.a/-1", UrlError::BadLun(own("-1"))),
            ("iscsi://nas/iqn.a/16384", UrlError::BadLun(own("16384"))),
            ("iscsi://nas//1", UrlError::BadLun(own("1"))),
            ("iscsi://nas/iqn.a/1/2", UrlError::TooMuch(own("2"))),
        ] {
            assert_eq!(text.parse::<Url>(), Err(error), "{text}");
        }
    }
}
