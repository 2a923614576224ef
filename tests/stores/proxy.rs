//! A TCP proxy that can vanish. It then keeps its sockets open and passes nothing on, like a machine after a power
//! failure or a firewall that has forgotten its connections.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinSet;

pub struct Proxy {
    pub port: u16,
    vanished: Arc<watch::Sender<bool>>,
    _tasks: JoinSet<()>,
}

impl Proxy {
    /// A proxy in front of a server on this machine.
    pub async fn before(port: u16) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let proxy_port = listener.local_addr().unwrap().port();
        let vanished = Arc::new(watch::Sender::new(false));
        let mut tasks = JoinSet::new();
        tasks.spawn(accept_all(listener, SocketAddr::from((Ipv4Addr::LOCALHOST, port)), vanished.clone()));
        Self { port: proxy_port, vanished, _tasks: tasks }
    }

    /// From now on nothing passes in either direction. New connections are accepted and receive nothing.
    pub fn vanish(&self) {
        self.vanished.send_replace(true);
    }
}

async fn accept_all(listener: TcpListener, server: SocketAddr, vanished: Arc<watch::Sender<bool>>) {
    let mut connections = JoinSet::new();
    loop {
        let (near, _) = listener.accept().await.unwrap();
        let vanished = vanished.subscribe();
        connections.spawn(async move {
            // A vanished machine keeps the socket open.
            let Ok(far) = TcpStream::connect(server).await else { return std::future::pending().await };
            let (near_read, near_write) = near.into_split();
            let (far_read, far_write) = far.into_split();
            tokio::join!(pass(near_read, far_write, vanished.clone()), pass(far_read, near_write, vanished),);
        });
    }
}

async fn pass(
    mut from: tokio::net::tcp::OwnedReadHalf,
    mut to: tokio::net::tcp::OwnedWriteHalf,
    mut vanished: watch::Receiver<bool>,
) {
    let mut buffer = vec![0; 16_384];
    loop {
        let read = tokio::select! {
            biased;
            () = async { drop(vanished.wait_for(|vanished| *vanished).await) } => None,
            read = from.read(&mut buffer) => Some(read.unwrap_or(0)),
        };
        let Some(read) = read else { return std::future::pending().await };
        if read == 0 || to.write_all(&buffer[..read]).await.is_err() {
            return;
        }
    }
}
