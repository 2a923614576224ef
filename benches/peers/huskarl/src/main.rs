//! The cost of a poll with huskarl: `huskarl-polls <issuer> <in flight> <rounds> <repetitions>`.
//!
//! The work is the same as in `benches/polls.rs`, against its server: kept connections, Basic authentication, a key per
//! sign-in and a fresh DPoP proof (ES256) for each poll. huskarl has no deferred grant, so these are polls of the
//! device grant, which differ in two names only. Prints the median CPU time of this program for a poll, in
//! microseconds.

use std::error::Error;
use std::time::Duration;

use futures_util::future::join_all;
use huskarl::core::client_auth::ClientSecret;
use huskarl::core::dpop::DPoP;
use huskarl::core::secrets::{ProvidedSecret, SecretString};
use huskarl::core::server_metadata::AuthorizationServerMetadata;
use huskarl::grant::device_authorization::{DeviceAuthorizationGrant, PendingState, PollResult, StartInput};
use huskarl_crypto_native::asymmetric::signer::{GenerateAlgorithm, PrivateKey};
use huskarl_reqwest::ReqwestClient;
use rustix::time::{ClockId, clock_gettime};

type Failed = Box<dyn Error + Send + Sync>;

fn main() -> Result<(), Failed> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let mut arguments = std::env::args().skip(1);
    let issuer = arguments.next().ok_or("the issuer is missing")?;
    let mut number = || -> Result<usize, Failed> { Ok(arguments.next().ok_or("a number is missing")?.parse()?) };
    let micros = runtime.block_on(measure(&issuer, number()?, number()?, number()?))?;
    println!("{micros}");
    Ok(())
}

async fn measure(issuer: &str, in_flight: usize, rounds: usize, repetitions: usize) -> Result<f64, Failed> {
    let http = ReqwestClient::from(reqwest::Client::builder().no_proxy().build()?);
    let metadata = AuthorizationServerMetadata::oidc_fetch().http_client(&http).issuer(issuer).call().await?;
    let mut waiting = Vec::with_capacity(in_flight);
    for _ in 0..in_flight {
        waiting.push(Waiting::start(&metadata, &http).await?);
    }
    let mut times = Vec::new();
    for repetition in 0..=repetitions {
        let began = cpu_time();
        for _ in 0..rounds {
            join_all(waiting.iter_mut().map(Waiting::poll)).await.into_iter().collect::<Result<Vec<_>, _>>()?;
        }
        // The first repetition warms up connections and caches.
        if repetition > 0 {
            times.push((cpu_time() - began).as_secs_f64() * 1e6 / (rounds * in_flight) as f64);
        }
    }
    times.sort_by(f64::total_cmp);
    Ok(times[times.len() / 2])
}

struct Waiting {
    grant: DeviceAuthorizationGrant,
    state: PendingState,
}

impl Waiting {
    async fn start(metadata: &AuthorizationServerMetadata, http: &ReqwestClient) -> Result<Self, Failed> {
        let secret = ProvidedSecret::new(SecretString::new("a secret of some length"));
        let key = PrivateKey::generate(GenerateAlgorithm::Es256, None)?;
        let grant = DeviceAuthorizationGrant::builder_from_metadata(metadata)?
            .client_id("bench")
            .http_client(http.clone())
            .client_auth(ClientSecret::new(secret))
            .dpop(DPoP::builder().signer(key).build())
            .build();
        let state = grant.start(StartInput::builder().build()).await?.pending_state;
        Ok(Self { grant, state })
    }

    async fn poll(&mut self) -> Result<(), Failed> {
        match self.grant.poll(&mut self.state, None).await? {
            PollResult::Pending => Ok(()),
            _ => Err("the server says pending".into()),
        }
    }
}

fn cpu_time() -> Duration {
    let time = clock_gettime(ClockId::ProcessCPUTime);
    Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
}
