//! Brings up a tunnel or a forwarding and holds it: what `farlun connect` does, in small.
//!
//! `tunnel_client [-i KEY] [-k KNOWN_HOSTS] [-a] [-w auto|socket|forward] [-s SOCKET] [-m MTU] [-l LISTEN]
//! [-r REMOTE_PORT] [user@]host[:port]`; the tun device needs root. It prints what came up and stops on Ctrl-C or when
//! its standard input is closed.

use std::sync::Arc;

use tokio::io::AsyncReadExt;
use tunnel::client::{ConnectOptions, Up, Ways, connect};
use tunnel::ssh::Terminal;

fn options() -> Result<ConnectOptions, Box<dyn std::error::Error>> {
    let mut options = ConnectOptions::new("localhost".parse()?);
    let mut args = std::env::args().skip(1);
    while let Some(arg) = args.next() {
        let mut value = || args.next().ok_or(format!("{arg} needs a value"));
        match arg.as_str() {
            "-a" => options.ssh.accept_new = true,
            "-i" => options.ssh.identities.push(value()?.into()),
            "-k" => options.ssh.known_hosts.get_or_insert_default().push(value()?.into()),
            "-l" => options.forward.listen = value()?.parse()?,
            "-m" => options.mtu = value()?.parse()?,
            "-r" => options.forward.remote_port = value()?.parse()?,
            "-s" => options.socket_path = value()?,
            "-w" => {
                options.ways = match value()?.as_str() {
                    "socket" => Ways::Socket,
                    "forward" => Ways::Forward,
                    _ => Ways::Auto,
                }
            }
            destination => options.destination = destination.parse()?,
        }
    }
    Ok(options)
}

#[tokio::main]
async fn main() -> std::process::ExitCode {
    let options = match options() {
        Ok(options) => options,
        Err(error) => {
            eprintln!("{error}");
            return 2.into();
        }
    };
    let connected = match connect(&options, Arc::new(Terminal)).await {
        Ok(connected) => connected,
        Err(error) => {
            eprintln!("{error}");
            return 1.into();
        }
    };
    if let Some(reason) = connected.instead_of() {
        println!("no tunnel: {reason}");
    }
    match connected.up() {
        Up::Tunnel {
            ifname,
            local,
            remote,
            mtu,
            ..
        } => println!("up {ifname} {local} {remote} mtu {mtu}"),
        Up::Forward {
            listen,
            remote_host,
            remote_port,
        } => println!("forward {listen} {remote_host}:{remote_port}"),
    }
    let shutdown = async {
        let mut rest = Vec::new();
        tokio::select! {
            _ = tokio::signal::ctrl_c() => {}
            _ = async { tokio::io::stdin().read_to_end(&mut rest).await } => {}
        }
    };
    match connected.run(shutdown).await {
        Ok(_) => {
            println!("down");
            0.into()
        }
        Err(error) => {
            eprintln!("{error}");
            1.into()
        }
    }
}
