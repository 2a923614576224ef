//! The demonstration: the OP in this program, and the application in another one that may be killed.

use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::Path;

use anyhow::{Context, bail};
use tokio::process::Command;

use super::op::{self, CLIENT_SECRET, OpSettings};
use super::{settings, stop};

#[derive(clap::Args)]
pub struct DemoSettings {
    /// The address of the application; any free port unless set.
    #[arg(long)]
    listen: Option<SocketAddr>,
    /// The address of the OP's pages; any free port unless set.
    #[arg(long, default_value_t = SocketAddr::from((Ipv4Addr::LOCALHOST, 0)))]
    op_listen: SocketAddr,
    /// Let the OP notify the application of decisions. Otherwise the application polls every two seconds.
    #[arg(long)]
    pings: bool,
    /// Let the OP speak the IETF draft, and require each user once more at a link.
    #[arg(long)]
    ietf: bool,
    /// The folder for the application's data; a new one that is removed at the end unless set.
    #[arg(long)]
    data: Option<std::path::PathBuf>,
}

pub async fn demo(settings: DemoSettings) -> anyhow::Result<()> {
    let listen = match settings.listen {
        Some(listen) => listen,
        None => TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?,
    };
    let app = format!("http://{listen}");
    let (listen_of_op, pings, ietf) = (settings.op_listen, settings.pings, settings.ietf);
    let op = OpSettings { app: app.clone(), listen: listen_of_op, pings, ietf, interval: None };
    let (front, listener) = op::open(&op).await?;
    let folder = tempfile::tempdir()?;
    let data = settings.data.as_deref().unwrap_or(folder.path());

    let arguments = front.application_arguments(settings.pings);
    println!("The application      {app}/");
    println!("The reviewers' desk  {}/desk", front.base);
    eprintln!("Kill the application with `kill -9` and the process ID that it prints. It is restarted and continues.");
    let op = front.op.clone();
    tokio::select! {
        failed = keep_running(listen, data, &arguments) => failed,
        failed = op::serve(front, listener) => failed,
        stopped = stop::requested() => {
            op::report(&op);
            stopped
        }
    }
}

/// Runs the application, and restarts it whenever it was killed.
async fn keep_running(listen: SocketAddr, data: &Path, arguments: &[String]) -> anyhow::Result<()> {
    loop {
        let mut command = Command::new(std::env::current_exe()?);
        command.args(["run", "--listen", &listen.to_string(), "--data"]).arg(data).args(arguments);
        command.env(settings::SECRET_VARIABLE, CLIENT_SECRET).kill_on_drop(true);
        let mut application = command.spawn().context("the application cannot be started")?;
        let status = application.wait().await?;
        if status.code().is_some() {
            bail!("the application ended by itself: {status}");
        }
        eprintln!("The application was killed and has been restarted.");
    }
}
