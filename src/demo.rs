//! `farlun demo`: the whole story on one machine. A disk is exported in one place, reached through SSH from another,
//! written, read back and compared.

mod child;
mod exercise;
mod kernel;
mod lab;
mod sshd;
mod stage;

use std::time::Instant;

use anyhow::anyhow;
use clap::Args;
use initiator::Url;

use crate::exit::Failure;
use crate::say::say;
use crate::signals;
use child::tool;
use lab::Lab;
use stage::Stage;

/// What can be said on the command line.
#[derive(Debug, Args)]
pub(crate) struct DemoArgs {
    /// How much to write and read back, in MiB
    #[arg(long, value_name = "N", default_value_t = 64, value_parser = clap::value_parser!(u64).range(1..=1024))]
    mib: u64,
    /// Use the kernel's initiator too: a disk appears on this machine (needs root, open-iscsi and iscsi_tcp)
    #[arg(long)]
    kernel: bool,
    /// The initiator's part, in a process of its own
    #[arg(long, hide = true, value_name = "URL")]
    exercise: Option<Url>,
    /// What the data is made from
    #[arg(long, hide = true, default_value_t = 0)]
    seed: u64,
}

/// Shows everything, and tidies up whatever happens.
pub(crate) async fn run(args: DemoArgs) -> Result<(), Failure> {
    if let Some(portal) = &args.exercise {
        return exercise::run(portal, args.mib, args.seed).await;
    }
    let start = Instant::now();
    let mut stop = signals::stop()?;
    let told = tokio::select! {
        told = tell(&args) => told,
        // What the story holds is dropped with it: programs, namespaces, files.
        signal = stop.signal() => Err(anyhow!("{signal}").into()),
    };
    match told {
        Ok(what) => {
            say!("demo: ok, {what}, in {:.1} s", start.elapsed().as_secs_f64());
            Ok(())
        }
        Err(failure) => {
            say!(
                "demo: FAILED after {:.1} s, everything is tidied up",
                start.elapsed().as_secs_f64()
            );
            Err(failure)
        }
    }
}

/// Numbers steps and tells how long each took.
struct Story {
    step: u32,
    since: Instant,
}

impl Story {
    fn tell(&mut self, text: &str) {
        self.step += 1;
        let took = self.since.elapsed().as_secs_f64();
        let mut lines = text.lines();
        say!("{:2}. {:<86} {took:6.2} s", self.step, lines.next().unwrap_or_default());
        lines.for_each(|line| say!("    {line}"));
        self.since = Instant::now();
    }
}

/// How much of the story this machine can show.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Extent {
    /// Two hosts and a tunnel.
    Tunnel,
    /// One host, and a forwarded port through sshd.
    Forward,
    /// One host, and TCP.
    Plain,
}

fn extent(kernel: bool) -> (Extent, Vec<String>) {
    let mut left_out = Vec::new();
    let no_sshd = sshd::missing();
    if let Some(name) = no_sshd {
        left_out.push(format!(
            "SSH: {name} is missing (sudo apt install openssh-server openssh-client)"
        ));
    }
    let hosts = "two hosts and the tunnel between their tun devices";
    let mut reason = None;
    if !rustix::process::geteuid().is_root() {
        reason = Some("that needs root (sudo farlun demo)".to_owned());
    } else if tool("ip").is_none() {
        reason = Some("ip is missing (sudo apt install iproute2)".to_owned());
    } else if let Err(error) = tunnel::tun::check() {
        reason = Some(error.to_string());
    }
    match (&reason, no_sshd) {
        (None, None) => return (Extent::Tunnel, left_out),
        (None, Some(_)) => left_out.push(format!("{hosts}: no sshd to go through")),
        (Some(reason), _) => left_out.push(format!("{hosts}: {reason}")),
    }
    let extent = if no_sshd.is_none() && !kernel {
        Extent::Forward
    } else {
        Extent::Plain
    };
    (extent, left_out)
}

async fn tell(args: &DemoArgs) -> Result<String, Failure> {
    if args.kernel
        && let Some(reason) = kernel::missing().await
    {
        return Err(anyhow!("--kernel: {reason}").into());
    }
    let (mut extent, mut left_out) = extent(args.kernel);
    let mut story = Story {
        step: 0,
        since: Instant::now(),
    };
    let lab = match extent {
        Extent::Tunnel => match Lab::namespaces(args.kernel).await {
            Ok(lab) => lab,
            Err(error) => {
                left_out.push(format!("two hosts: network namespaces cannot be made here ({error:#})"));
                extent = Extent::Forward;
                Lab::loopback()
            }
        },
        _ => Lab::loopback(),
    };
    let mut stage = Stage::new(lab, args.mib)?;
    let what = stage.play(extent, args.kernel, &mut story, &mut left_out).await?;
    for text in &left_out {
        say!("    left out: {text}");
    }
    Ok(what)
}
