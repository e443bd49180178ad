//! farlun: a disk on the other side of the Internet.
#![forbid(unsafe_code)]

mod admin;
mod config;
mod connect;
mod control;
mod culprit;
mod demo;
mod exit;
mod logging;
mod metrics;
mod probe;
mod say;
mod serve;
mod signals;
mod state;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

use exit::Failure;

/// A disk on the other side of the Internet: an iSCSI target with an SSH tunnel built in
#[derive(Debug, Parser)]
#[command(version, after_help = exit::HELP, max_term_width = 100, propagate_version = true)]
struct Cli {
    /// Say more: -v what happens, -vv every detail (RUST_LOG decides if it is set)
    #[arg(short, long, action = clap::ArgAction::Count, global = true)]
    verbose: u8,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Export LUNs over iSCSI, until Ctrl-C
    Serve(serve::ServeArgs),
    /// Reach the LUNs of a host through its sshd, until Ctrl-C
    Connect(connect::ConnectArgs),
    /// List, create, change and remove targets of a running farlun serve
    Target(admin::target::TargetArgs),
    /// List, create, change and remove LUNs
    Lun(admin::lun::LunArgs),
    /// List the sessions of initiators, or end one
    Session(admin::session::SessionArgs),
    /// Show how a running farlun serve is
    Status(admin::status::StatusArgs),
    /// Let a running farlun serve read its configuration anew
    Reload(admin::reload::ReloadArgs),
    /// Show what a portal offers: targets, LUNs, round trip
    Probe(probe::ProbeArgs),
    /// Show the whole story on this machine: export, SSH, login, write, read back, compare
    Demo(demo::DemoArgs),
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    logging::start(cli.verbose, matches!(cli.command, Command::Serve(_)));
    match run(cli.command) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            eprintln!("farlun: {failure}");
            failure.code()
        }
    }
}

fn run(command: Command) -> Result<(), Failure> {
    let workers = std::thread::available_parallelism().map_or(1, usize::from);
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(workers)
        .enable_all()
        .build()?;
    let result = runtime.block_on(async {
        match command {
            Command::Serve(args) => serve::run(args).await,
            Command::Connect(args) => connect::run(args).await,
            Command::Target(args) => admin::target::run(args).await,
            Command::Lun(args) => admin::lun::run(args).await,
            Command::Session(args) => admin::session::run(args).await,
            Command::Status(args) => admin::status::run(args).await,
            Command::Reload(args) => admin::reload::run(args).await,
            Command::Probe(args) => probe::run(args).await,
            Command::Demo(args) => demo::run(args).await,
        }
    });
    // What still blocks a thread (a medium that hangs) must not keep the process.
    runtime.shutdown_background();
    result
}
