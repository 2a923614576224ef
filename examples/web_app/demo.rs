//! The demonstration: the OP in this process, and the application in one of its own that may be killed.

use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::Path;

use anyhow::{Context, bail};
use tokio::process::Command;

use super::op::{self, CLIENT_SECRET, OpSettings};
use super::{settings, stop};

#[derive(clap::Args)]
pub struct DemoSettings {
    /// Where the application is served; any free port unless told.
    #[arg(long)]
    listen: Option<SocketAddr>,
    /// Where the OP's pages are served; any free port unless told.
    #[arg(long, default_value_t = SocketAddr::from((Ipv4Addr::LOCALHOST, 0)))]
    op_listen: SocketAddr,
    /// Let the OP tell the application when there is news, instead of being asked every two seconds.
    #[arg(long)]
    pings: bool,
    /// Keep the application's data in this folder. A new one, which is removed at the end, unless told.
    #[arg(long)]
    data: Option<std::path::PathBuf>,
}

pub async fn demo(settings: DemoSettings) -> anyhow::Result<()> {
    let listen = match settings.listen {
        Some(listen) => listen,
        None => TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?,
    };
    let app = format!("http://{listen}");
    let op = OpSettings { app: app.clone(), listen: settings.op_listen, pings: settings.pings, interval: None };
    let (front, listener) = op::open(&op).await?;
    let folder = tempfile::tempdir()?;
    let data = settings.data.as_deref().unwrap_or(folder.path());

    let arguments = front.application_arguments(settings.pings);
    println!("The application      {app}/");
    println!("The reviewers' desk  {}/desk", front.base);
    eprintln!("Kill the application with `kill -9` and the number that it says. It is started again and carries on.");
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

/// Runs the application, and starts it again whenever it was killed.
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
        eprintln!("The application was killed; here it is again.");
    }
}
