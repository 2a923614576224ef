//! The application's pages.

use maud::{Markup, html};
use openid_deferred::error::ProblemDetails;
use openid_deferred::poller::{CancellationStatus, Status};
use openid_deferred::store::State;
use openid_deferred::{Claims, Secret};

use super::ending::{Ending, Person};
use super::ledger::Booking;
use super::shell::{self, Brand, Page};

const BRAND: Brand = Brand { name: "Fairwater Boats", home: "/", class: "fairwater" };

/// The boats for rent.
pub const BOATS: [Boat; 3] = [
    Boat { name: "Marlin", about: "Sloop for four", price: "€ 140 a day", colour: "#0b5563" },
    Boat { name: "Puffin", about: "Dinghy for two", price: "€ 35 a day", colour: "#c2410c" },
    Boat { name: "Otter", about: "Ketch for six", price: "€ 190 a day", colour: "#4d7c0f" },
];

pub struct Boat {
    pub name: &'static str,
    about: &'static str,
    price: &'static str,
    colour: &'static str,
}

/// The start page. `op` is the origin that the form leads to.
pub fn home(person: Option<&Person>, bookings: &[Booking], op: Option<String>) -> Page {
    let body = html! {
        section.hero {
            h1 { "Take a boat out this weekend" }
            p.lead {
                "We hand out the keys as soon as we know who you are. Your identity provider looks at your passport; \
                 we never see it."
            }
        }
        @if op.is_none() {
            p.note.warn role="alert" { "The identity provider does not answer right now. Please try again in a minute." }
        }
        form.card method="post" action="/book" {
            fieldset {
                legend { h2 { "Which boat?" } }
                div.choices {
                    @for (number, boat) in BOATS.iter().enumerate() {
                        label.choice {
                            input type="radio" name="boat" value=(boat.name) checked[number == 0] required;
                            (picture(boat.colour))
                            span { strong { (boat.name) } br; (boat.about) br; span.quiet { (boat.price) } }
                        }
                    }
                }
            }
            button.primary type="submit" { "Prove who I am" }
            p.quiet { "You are sent to your provider and come back. Checking takes from minutes to days." }
        }
        (list("Your bookings in this browser", bookings))
    };
    framed("Boats to rent", person, body, op)
}

/// The page of one booking.
pub fn booking(person: Option<&Person>, booking: &Booking) -> Page {
    let (source, stage) = (format!("/book/{}/events", booking.id), Stage::of(booking));
    framed(heading(&stage).0, person, shell::live(&source, view(booking, &stage)), None)
}

/// The part of the page that changes.
fn view(booking: &Booking, stage: &Stage<'_>) -> Markup {
    let (title, kind) = heading(stage);
    let id = booking.id;
    html! {
        article.card.status.(kind) #booking data-title={ (title) " – " (BRAND.name) } {
            (steps(stage))
            div.headline {
                span.sign aria-hidden="true" {}
                div data-announce data-part="headline" {
                    h1 #headline tabindex="-1" { (title) }
                    (explanation(stage))
                }
            }
            @match stage {
                Stage::Waiting(status) => {
                    div data-part="interaction" {
                        @if let Some(uri) = interaction(status) {
                            // Only the browser that made the booking gets this page. The link opens without a referrer
                            // and without access to this window, and it is never logged.
                            a.button.primary #interaction href=(uri.expose()) target="_blank" rel="noopener noreferrer"
                                referrerpolicy="no-referrer" { "Continue at your provider" }
                        }
                    }
                    div data-part="claims" {
                        @if let Some(token) = status.interim().verified() { (unverified(token.claims())) }
                    }
                    @if !status.is_cancelled() {
                        form method="post" action={ "/book/" (id) "/cancel" } {
                            button #cancel type="submit" { "I no longer want this" }
                        }
                    }
                }
                Stage::Ended(Ending { person: Some(person), .. }) => {
                    (verified(person))
                    form method="post" action={ "/book/" (id) "/finish" } {
                        button.primary #enter type="submit" { "Continue as " (person.called()) }
                    }
                }
                Stage::Ended(_) | Stage::Lost => div.actions {
                    a.button.primary #again href="/" { "Start again" }
                    form method="post" action={ "/book/" (id) "/dismiss" } {
                        button #dismiss type="submit" { "Remove from my bookings" }
                    }
                },
                Stage::Arriving => {}
            }
            p.quiet { "Booking of the " strong { (booking.boat) } ". You may close this page. The booking is under "
                a href="/" { "your bookings" } " in this browser." }
        }
    }
}

/// The page of the signed-in user.
pub fn account(person: &Person) -> Page {
    let body = html! {
        section.hero { h1 { "Welcome aboard, " (person.called()) } p.lead { "The keys are waiting at the pier." } }
        article.card {
            h2 { "What we know about you" }
            (verified(person))
            form method="post" action="/sign-out" { button type="submit" { "Sign out" } }
        }
    };
    framed("Your account", Some(person), body, None)
}

pub fn problem(problem: ProblemDetails) -> Page {
    let (title, text) = (problem.title(), problem.detail());
    let body = html! {
        article.card.status.bad {
            div.headline { span.sign aria-hidden="true" {} div { h1 { (title) } p { (text) } } }
            a.button.primary href="/" { "To the start page" }
        }
    };
    Page { status: problem.status(), ..framed(title, None, body, None) }
}

fn framed(title: &str, person: Option<&Person>, body: Markup, form_to: Option<String>) -> Page {
    let menu = html! {
        a href="/" { "Boats" }
        @match person {
            Some(person) => a href="/account" { (person.called()) },
            None => span.quiet { "Not signed in" },
        }
    };
    Page { menu, form_to, ..Page::new(BRAND, title, body) }
}

/// The link for the user, if the OP needs them once more. It is as sensitive as a token, and the library has checked that
/// it is an `https:` URL.
fn interaction(status: &Status) -> Option<&Secret> {
    status.interaction_uri().filter(|_| !status.is_cancelled())
}

/// The state of a booking.
enum Stage<'a> {
    /// The OP has not decided yet.
    Waiting(&'a Status),
    /// The OP has decided; its answer is being verified and stored.
    Arriving,
    Ended(&'a Ending),
    /// The outcome is unknown.
    Lost,
}

impl<'a> Stage<'a> {
    fn of(booking: &'a Booking) -> Self {
        match (&booking.ending, &booking.status) {
            (Some(ending), _) => Self::Ended(ending),
            (None, Some(status)) if status.has_ended() => Self::Lost,
            (None, Some(status)) if matches!(status.state(), State::Answered | State::Decided) => Self::Arriving,
            (None, Some(status)) => Self::Waiting(status),
            (None, None) => Self::Lost,
        }
    }
}

/// The headline of a stage, and the class for its colour.
fn heading(stage: &Stage<'_>) -> (&'static str, &'static str) {
    match stage {
        Stage::Waiting(status) if status.is_cancelled() => ("The check is being cancelled", "calm"),
        Stage::Waiting(status) if interaction(status).is_some() => ("Your provider needs something from you", "busy"),
        Stage::Waiting(_) => ("Your provider is checking who you are", "busy"),
        Stage::Arriving => ("Your provider has answered", "busy"),
        Stage::Lost => ("The check failed", "bad"),
        Stage::Ended(Ending { person: Some(_), .. }) => ("Your identity is verified", "good"),
        Stage::Ended(ending) => match ending.name.as_str() {
            "cancelled" => ("You cancelled the check", "calm"),
            "denied" => ("Your provider could not confirm who you are", "bad"),
            "expired" => ("Time ran out", "bad"),
            "invalid" => ("The answer was not valid", "bad"),
            "unknown" => ("The answer was lost", "bad"),
            _ => ("The check failed", "bad"),
        },
    }
}

/// The meaning of a stage in plain words, and what to do next.
fn explanation(stage: &Stage<'_>) -> Markup {
    let text = match stage {
        Stage::Waiting(status) if status.is_cancelled() => match status.cancellation() {
            Some(CancellationStatus::LocallyOnly) => {
                "Your provider cannot be informed, so it may still contact you. No boat is booked."
            }
            Some(CancellationStatus::Requested) => "Your provider is being informed. You need not do anything.",
            _ => "Your provider has been informed. You need not do anything.",
        },
        Stage::Waiting(status) if interaction(status).is_some() => {
            "The link works once and opens in a new tab. This page updates itself when you are done."
        }
        Stage::Waiting(_) => "This can take minutes or days. You need not do anything.",
        Stage::Arriving => "We are checking the answer. This takes a moment.",
        Stage::Lost => "Your provider ended the check. That says nothing about you. Start again.",
        Stage::Ended(Ending { person: Some(_), .. }) => "The boat is yours.",
        Stage::Ended(ending) => match ending.name.as_str() {
            "cancelled" => "No boat is booked, and nothing about you was used. Start again at any time.",
            "denied" => {
                "No boat is booked. If you think that this is a mistake, ask your provider, and then start again."
            }
            "expired" => "Your provider did not decide in time. That says nothing about you. Start again.",
            "invalid" => {
                "An answer came, but it did not stand up to our checks, so we did not use it. We have made a note of \
                 it. Start again, and call us if it happens twice."
            }
            "unknown" => {
                "Your provider may have answered, but the answer did not reach us, and it is given only once. You were \
                 neither confirmed nor refused. Start again."
            }
            _ => "Your provider ended the check. That says nothing about you. Start again.",
        },
    };
    let (id, said) = match stage {
        Stage::Waiting(status) => ("progress", status.progress()),
        Stage::Ended(ending) => ("reason", ending.reason.as_deref()),
        Stage::Arriving | Stage::Lost => ("", None),
    };
    html! {
        p { (text) }
        @if let Some(said) = said { p.says id=(id) { span.label { "Your provider says" } (said) } }
    }
}

fn steps(stage: &Stage<'_>) -> Markup {
    let now = match stage {
        Stage::Waiting(_) => 1,
        Stage::Arriving | Stage::Ended(_) | Stage::Lost => 2,
    };
    html! {
        ol.steps aria-label="Progress" {
            @for (number, name) in ["At your provider", "Being checked", "Decided"].into_iter().enumerate() {
                li.done[number < now].now[number == now] aria-current=[(number == now).then_some("step")] { (name) }
            }
        }
    }
}

/// Interim claims. The OP may not have verified any of them, so they give no access.
fn unverified(claims: &Claims) -> Markup {
    let rows = [("Name", claims.name()), ("Date of birth", claims.birthdate())];
    html! {
        @if rows.iter().any(|(_, value)| value.is_some()) {
            section.claims.unverified #unverified aria-label="Not verified yet" {
                h2 { "What you told your provider " span.badge { "not verified" } }
                (facts(&rows))
            }
        }
    }
}

fn verified(person: &Person) -> Markup {
    html! {
        section.claims.verified #verified aria-label="Verified" {
            h2 { "What your provider confirms " span.badge { "verified" } }
            (facts(&[
                ("Name", person.name.as_deref()),
                ("Date of birth", person.birthdate.as_deref()),
                ("E-mail", person.email.as_deref()),
            ]))
        }
    }
}

fn facts(rows: &[(&str, Option<&str>)]) -> Markup {
    html! {
        dl {
            @for (name, value) in rows {
                @if let Some(value) = value { div { dt { (name) } dd { (value) } } }
            }
        }
    }
}

fn list(title: &str, bookings: &[Booking]) -> Markup {
    html! {
        @if !bookings.is_empty() {
            section.card aria-labelledby="bookings" {
                h2 #bookings { (title) }
                ul.list {
                    @for booking in bookings {
                        @let (word, class) = word(booking);
                        li { a href={ "/book/" (booking.id) } { (booking.boat) } span.badge.(class) { (word) } }
                    }
                }
            }
        }
    }
}

fn word(booking: &Booking) -> (&'static str, &'static str) {
    match Stage::of(booking) {
        Stage::Waiting(_) | Stage::Arriving => ("being checked", "busy"),
        Stage::Ended(Ending { person: Some(_), .. }) => ("verified", "good"),
        Stage::Ended(ending) => match ending.name.as_str() {
            "cancelled" => ("called off", "calm"),
            "denied" => ("refused", "bad"),
            "expired" => ("expired", "bad"),
            _ => ("start again", "bad"),
        },
        Stage::Lost => ("start again", "bad"),
    }
}

fn picture(colour: &str) -> Markup {
    html! {
        svg viewBox="0 0 64 48" aria-hidden="true" {
            path d="M30 4v26H12z" fill=(colour) opacity="0.35" {}
            path d="M34 8v22h16z" fill=(colour) opacity="0.6" {}
            path d="M6 33h52l-7 10H13z" fill=(colour) {}
            path d="M2 46q5-4 10 0t10 0 10 0 10 0 10 0 10 0" fill="none" stroke="#7dd3d8" stroke-width="2" {}
        }
    }
}
