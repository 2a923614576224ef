//! Faults in front of a provider, and of the provider.

use std::time::Duration;

use openid_deferred::testing::{Endpoint, Fault, RecordedRequest, TestProvider};

use crate::chance::Chance;

/// The number of polls that fail when a proxy has no provider behind it.
const STORM: usize = 100;
/// Shorter than workers wait for an answer, and longer than most answers take.
pub const DELAY: Duration = Duration::from_secs(1);

/// Triggers another fault now and then.
pub struct Faults {
    pause: Duration,
    next: Duration,
    /// How often the keys change or are unavailable, and when that happens next.
    keys: Option<(Duration, Duration)>,
}

impl Faults {
    /// Triggers faults about this often. If the trial takes long enough, as `time` says, the keys are affected as well,
    /// a few times. No client fetches keys again at once, so recovery takes minutes.
    pub fn every(pause: Duration, time: Duration) -> Self {
        let keys = (time > Duration::from_secs(300)).then_some((time / 10, Duration::ZERO));
        Self { pause, next: Duration::ZERO, keys }
    }

    pub fn work(&mut self, op: &TestProvider, chance: &Chance, now: Duration) {
        if self.next <= now {
            self.next = now + self.pause / 2 + chance.share(self.pause);
            trouble(op, chance.below(KINDS));
        }
        if let Some((pause, next)) = &mut self.keys
            && *next <= now
        {
            *next = now + *pause / 2 + chance.share(*pause);
            op.rotate_keys();
            op.misbehave(Fault::status(Endpoint::Keys, 503).times(chance.below(3)));
        }
    }
}

const KINDS: usize = 31;

fn trouble(op: &TestProvider, kind: usize) {
    use Endpoint::{BackchannelAuthentication, ClientCredentials, Code, Exchange, Poll, Token};
    op.misbehave(match kind {
        // A proxy or a provider that fails, before or after the request was processed.
        0 => Fault::status(Poll, 503).header("Retry-After", "2"),
        1 => Fault::status(Poll, 502),
        2 => Fault::status(Poll, 502).after_processing(),
        3 => Fault::error_with_status(Poll, 500, "server_error"),
        4 => Fault::response(Poll, 429, "application/json", "{}").header("Retry-After", "3"),
        5 => Fault::response(Poll, 200, "text/html", "<h1>Please sign in to this network</h1>"),
        6 => Fault::status(Poll, 503).times(STORM),
        // A connection that breaks. Over HTTP/2 all other requests on it break too.
        7 => Fault::reset(Poll),
        8 => Fault::reset(Poll).after_processing(),
        9 => Fault::reset(Poll).after_success(),
        10 => Fault::cut_body(Poll),
        11 => Fault::cut_body(Poll).after_success(),
        12 => Fault::status(Poll, 504).after_success(),
        // Answers that never end, or that are slow.
        13 => Fault::stall(Poll),
        14 => Fault::stall(Poll).after_success(),
        15 => Fault::delay(Poll, DELAY),
        16 => Fault::delay(Poll, DELAY).after_success(),
        // Codes that are spent without a result, and token requests that nobody answers.
        17 => Fault::reset(Exchange),
        18 => Fault::cut_body(Exchange),
        19 => Fault::status(Exchange, 503),
        20 => Fault::reset(Code),
        21 => Fault::cut_body(Code),
        22 => Fault::status(Code, 503),
        23 => Fault::reset(ClientCredentials),
        24 => Fault::cut_body(ClientCredentials),
        25 => Fault::status(ClientCredentials, 503),
        // Events that a provider may cause at any time.
        26 => Fault::reset(BackchannelAuthentication),
        27 => Fault::cut_body(BackchannelAuthentication),
        28 => Fault::status(BackchannelAuthentication, 503),
        29 => Fault::forget_nonces(Token),
        30 => return op.rotate_nonces(),
        kind => unreachable!("there are {KINDS} kinds of trouble, not {kind}"),
    });
}

/// Whether a fault may have kept the provider's answer from the client.
pub fn is_spoilt(request: &RecordedRequest) -> bool {
    faults(request).any(|name| !matches!(name, "delay" | "nonces forgotten"))
}

/// Whether this request's connection was broken, and with it all other requests on it.
pub fn breaks_connections(request: &RecordedRequest) -> bool {
    faults(request).any(|name| name == "reset")
}

/// Whether the answer was held back for [`DELAY`].
pub fn is_delayed(request: &RecordedRequest) -> bool {
    faults(request).any(|name| name == "delay")
}

fn faults(request: &RecordedRequest) -> impl Iterator<Item = &str> {
    request.fault.iter().flat_map(|faults| faults.split(", "))
}
