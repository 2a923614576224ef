//! A private key that the application never sees: `private_key_jwt` with a [`Signer`] in another program.
//!
//! Run it with `cargo run --features testing --example external_signer`. It starts itself a second time as a key
//! service, which generates a key, prints its public half, and then signs everything that it reads from standard input.
//! In production a key management service or a hardware module takes its place. The design stays the same: one thread
//! communicates with it, and each signature is awaited without blocking other tasks.

use std::io::{self, BufRead as _, BufReader, Read, Write};
use std::process::{Child, Command, ExitCode, Stdio};
use std::sync::mpsc;
use std::time::Duration;

use anyhow::{Context as _, bail};
use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use openid_deferred::testing::{TestClient, TestProvider};
use openid_deferred::{Client, Error, Outcome, SignIn, Signer, SigningAlgorithm, SigningKey};
use tokio::sync::oneshot;

/// The argument that makes this program the key service.
const KEY_SERVICE: &str = "--key-service";

fn main() -> ExitCode {
    let run = if std::env::args().any(|argument| argument == KEY_SERVICE) { key_service() } else { application() };
    match run {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error:#}");
            ExitCode::FAILURE
        }
    }
}

/// The application: it registers the public key at an OP and signs a user in.
#[tokio::main(flavor = "current_thread")]
async fn application() -> anyhow::Result<()> {
    let (signer, public_jwk) = PipeSigner::start().context("the key service cannot be started")?;
    println!("The key service's public key, to be registered at the OP: {public_jwk}");

    let op = TestProvider::builder()
        .client(TestClient::private_key_jwt("my-client", &public_jwk))
        .interval(Duration::from_secs(1))
        .start()?;
    let client = Client::builder(op.issuer(), "my-client")
        .signing_key(signer)
        .redirect_uri("http://127.0.0.1:8080/callback")
        .allow_insecure_loopback()
        .discover()
        .await?;
    println!("The client authenticates with {}.", client.authentication_method().unwrap_or("nothing"));

    let (url, session) = client.authorize().start().await?;
    let query = op.visit(url).query();
    let SignIn::Deferred(mut pending) = client.authorization_response(&query, session).await? else {
        bail!("the OP answered at once");
    };
    println!("The code is exchanged. Each poll has a new assertion.");
    let Outcome::Approved(authentication) = client.wait(&mut pending).await? else {
        bail!("the OP did not approve");
    };
    println!("Signed in: {}", authentication.claims().name().unwrap_or("somebody"));
    op.assert_clean();
    Ok(())
}

/// A key in another program, behind a pipe.
#[derive(Debug)]
struct PipeSigner {
    requests: mpsc::Sender<Request>,
}

struct Request {
    message: Vec<u8>,
    reply: oneshot::Sender<io::Result<Vec<u8>>>,
}

impl PipeSigner {
    /// Starts the key service, and the thread that communicates with it. The key service ends with its input, when the
    /// last signer is dropped.
    fn start() -> io::Result<(Self, String)> {
        let mut command = Command::new(std::env::current_exe()?);
        let mut key_service = command.arg(KEY_SERVICE).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
        let mut output = BufReader::new(key_service.stdout.take().ok_or(io::ErrorKind::BrokenPipe)?);
        let mut public_jwk = String::new();
        output.read_line(&mut public_jwk)?;
        let (requests, received) = mpsc::channel();
        std::thread::Builder::new().name("signer".into()).spawn(move || converse(key_service, output, &received))?;
        Ok((Self { requests }, public_jwk.trim().to_owned()))
    }
}

impl Signer for PipeSigner {
    fn algorithm(&self) -> SigningAlgorithm {
        SigningAlgorithm::Es256
    }

    fn key_id(&self) -> Option<&str> {
        None
    }

    /// The thread handles a request as a whole. So a caller that stops waiting leaves no part of an answer in the pipe.
    fn sign<'a>(&'a self, message: &'a [u8]) -> BoxFuture<'a, Result<Vec<u8>, Error>> {
        let (reply, replied) = oneshot::channel();
        let sent = self.requests.send(Request { message: message.to_vec(), reply });
        async move {
            sent.map_err(|_| Error::signer("the key service has ended"))?;
            let signature = replied.await.map_err(|_| Error::signer("the key service has ended"))?;
            signature.map_err(Error::signer)
        }
        .boxed()
    }
}

/// Sends one message at a time, and reads its signature.
fn converse(mut key_service: Child, mut output: impl Read, requests: &mpsc::Receiver<Request>) {
    let Some(mut input) = key_service.stdin.take() else { return };
    for Request { message, reply } in requests {
        let signature = write_frame(&mut input, &message).and_then(|()| read_frame(&mut output));
        // The caller may not be waiting any more.
        let _ = reply.send(signature);
    }
    drop(input);
    let _ = key_service.wait();
}

/// The other program. Only this one has the key.
#[tokio::main(flavor = "current_thread")]
async fn key_service() -> anyhow::Result<()> {
    let key = SigningKey::generate(SigningAlgorithm::Es256)?;
    let (mut input, mut output) = (io::stdin().lock(), io::stdout().lock());
    writeln!(output, "{}", serde_json::to_string(&key.public_jwk())?)?;
    output.flush()?;
    loop {
        match read_frame(&mut input) {
            // RFC 7518 §3.4: an ECDSA signature is the two integers side by side, which is what `SigningKey` returns.
            Ok(message) => write_frame(&mut output, &key.sign(&message).await?)?,
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(()),
            Err(error) => return Err(error.into()),
        }
    }
}

/// The longest frame. A frame is its length in four bytes and then its content. The messages are client assertions, and
/// none is longer.
const LONGEST_FRAME: usize = 64 * 1024;

fn write_frame(output: &mut impl Write, frame: &[u8]) -> io::Result<()> {
    let length = u32::try_from(frame.len()).map_err(|_| io::ErrorKind::InvalidInput)?;
    output.write_all(&length.to_be_bytes())?;
    output.write_all(frame)?;
    output.flush()
}

fn read_frame(input: &mut impl Read) -> io::Result<Vec<u8>> {
    let mut length = [0; 4];
    input.read_exact(&mut length)?;
    let length = u32::from_be_bytes(length) as usize;
    if length > LONGEST_FRAME {
        return Err(io::ErrorKind::InvalidData.into());
    }
    let mut frame = vec![0; length];
    input.read_exact(&mut frame)?;
    Ok(frame)
}
