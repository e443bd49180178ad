//! Hosts made of namespaces: a network and a mount namespace with `/run`, `/sys` and user accounts of their own, joined
//! by veth pairs or, for a guest, by a tap device.
//!
//! A namespace lives as long as the process that holds it, so nothing is named and nothing is left behind.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use tempfile::TempDir;

use crate::paths;
use crate::process::{self, Process, mortal};

/// A group of the private `/etc/group`, which [`MEMBER`] is in.
pub const GROUP: &str = "farlun";
/// A user in [`GROUP`].
pub const MEMBER: &str = "farlun-member";
/// A user in no group but its own.
pub const STRANGER: &str = "farlun-stranger";

const GROUP_ID: u32 = 61000;
const MEMBER_ID: u32 = 61001;
const STRANGER_ID: u32 = 61002;

/// Time for commands that only change a setting.
const SETTING_LIMIT: Duration = Duration::from_secs(10);

/// The commands that turn fresh namespaces into a host. `$1` holds the account files.
const FURNISH: &str = r#"
set -e
mount -t tmpfs tmpfs /run
mkdir -p /dev/shm; mount -t tmpfs -o mode=1777 tmpfs /dev/shm
mkdir -p /run/sshd /run/lock /run/farlun
mount -t sysfs sysfs /sys
for f in passwd shadow group; do mount --bind "$1/$f" "/etc/$f"; done
# Addresses that IPv6 gives itself are there at once, not a second later.
dad=/proc/sys/net/ipv6/conf/default/accept_dad
[ ! -w $dad ] || echo 0 >$dad
ip link set lo up
echo ready
exec sleep infinity
"#;

/// A host made of namespaces. Dropping it kills its holder; what still runs in it keeps the namespaces alive, so drop
/// processes first.
#[derive(Debug)]
pub struct Namespace {
    holder: Process,
    dir: TempDir,
}

impl Namespace {
    /// Make one, with loopback up and no other interface.
    ///
    /// # Errors
    /// Not root, or a tool is missing.
    pub fn new() -> Result<Self> {
        ensure!(
            rustix::process::geteuid().is_root(),
            "the integration tests need root, for namespaces and tap devices"
        );
        let dir = tempfile::Builder::new().prefix("farlun-ns-").tempdir()?;
        // Others may read accounts and reach sockets below: file modes alone say who may use what.
        fs::set_permissions(dir.path(), std::os::unix::fs::PermissionsExt::from_mode(0o755))?;
        write_accounts(dir.path())?;
        let mut command = mortal(paths::tool("unshare")?)?;
        command.args([
            "--net",
            "--mount",
            "--propagation",
            "private",
            "--",
            "/bin/sh",
            "-c",
            FURNISH,
            "holder",
        ]);
        command.arg(dir.path());
        let mut holder = Process::spawn("namespace", &mut command, &dir.path().join("holder.log"))?;
        holder.wait_for_line("ready", SETTING_LIMIT)?;
        Ok(Self { holder, dir })
    }

    /// A folder that lives as long as the namespace, for sockets, logs and configuration.
    pub fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// A command to run inside, as root, with `/` as working directory. Its process id is the program's own.
    ///
    /// # Errors
    /// A tool is missing.
    pub fn command(&self, program: impl AsRef<Path>) -> Result<Command> {
        let mut command = mortal(paths::tool("nsenter")?)?;
        command
            .arg("--target")
            .arg(self.holder.pid().to_string())
            .args(["--mount", "--net", "--"]);
        command.arg(program.as_ref());
        Ok(command)
    }

    /// A command to run inside as another user, with the groups that user has.
    ///
    /// # Errors
    /// A tool is missing.
    pub fn command_as(&self, user: &str, program: impl AsRef<Path>) -> Result<Command> {
        let mut command = self.command(paths::tool("setpriv")?)?;
        // Again: a change of user clears what the parent's death would have sent.
        command.args([
            "--pdeathsig",
            "KILL",
            "--reuid",
            user,
            "--regid",
            user,
            "--init-groups",
            "--no-new-privs",
            "--",
        ]);
        command.arg(program.as_ref());
        Ok(command)
    }

    /// Run a shell script inside, which must succeed, and return what it said.
    ///
    /// # Errors
    /// It fails or takes more than ten seconds.
    pub fn sh(&self, script: &str) -> Result<String> {
        self.sh_within(script, SETTING_LIMIT)
    }

    /// The same for a script that takes longer.
    ///
    /// # Errors
    /// It fails or takes more than `limit`.
    pub fn sh_within(&self, script: &str, limit: Duration) -> Result<String> {
        let mut command = self.command("/bin/sh")?;
        process::run(script, command.args(["-ec", script]), limit)
    }

    /// Add a tap device with an address such as `10.99.0.1/24`, for a guest to sit behind.
    ///
    /// # Errors
    /// The device cannot be made.
    pub fn add_tap(&self, name: &str, address: &str) -> Result<()> {
        self.sh(&format!(
            "ip tuntap add dev {name} mode tap; ip addr add {address} dev {name}; ip link set {name} up"
        ))?;
        Ok(())
    }

    /// Join two hosts by a cable: interface and address here, the same there.
    ///
    /// # Errors
    /// The devices cannot be made.
    pub fn cable(&self, here: (&str, &str), other: &Self, there: (&str, &str)) -> Result<()> {
        let peer = other.holder.pid();
        self.sh(&format!(
            "ip link add {} type veth peer name {} netns {peer}",
            here.0, there.0
        ))?;
        for (host, (name, address)) in [(self, here), (other, there)] {
            host.sh(&format!("ip addr add {address} dev {name}; ip link set {name} up"))?;
        }
        Ok(())
    }
}

/// Copies of the host's account files with our users added and root's password neither usable nor locked (a locked
/// account may not log in by key either).
fn write_accounts(dir: &Path) -> Result<()> {
    let read = |name: &str| fs::read_to_string(Path::new("/etc").join(name)).with_context(|| format!("/etc/{name}"));
    let mut passwd = read("passwd")?;
    let mut group = read("group")?;
    let mut shadow = String::from("root:*:19000:0:99999:7:::\n");
    shadow.extend(
        read("shadow")?
            .lines()
            .filter(|line| !line.starts_with("root:"))
            .map(|line| format!("{line}\n")),
    );
    for (user, id) in [(MEMBER, MEMBER_ID), (STRANGER, STRANGER_ID)] {
        passwd += &format!("{user}:x:{id}:{id}::/tmp:/bin/sh\n");
        group += &format!("{user}:x:{id}:\n");
        shadow += &format!("{user}:*:19000:0:99999:7:::\n");
    }
    group += &format!("{GROUP}:x:{GROUP_ID}:{MEMBER}\n");
    for (name, text) in [("passwd", passwd), ("group", group), ("shadow", shadow)] {
        fs::write(dir.join(name), text)?;
    }
    fs::set_permissions(dir.join("shadow"), std::os::unix::fs::PermissionsExt::from_mode(0o600))?;
    Ok(())
}
