//! The OP's pages.

use axum::http::StatusCode;
use maud::{Markup, PreEscaped, html};

use super::op::Case;
use super::shell::{Brand, Page};

const BRAND: Brand = Brand { name: "Lantern ID", home: "#main", class: "lantern" };
const DESK: Brand = Brand { name: "Lantern ID desk", home: "/desk", class: "lantern" };

/// The form for the user. `request` is the query of the authorization request, and `application` is the origin that the
/// form leads to.
pub fn ask(request: &str, application: Option<String>) -> Page {
    let body = html! {
        section.hero {
            h1 { strong { "Fairwater Boats" } " wants to know who you are" }
            p.lead { "Show us your passport. A reviewer checks it later. You need not wait here." }
        }
        form.card method="post" action={ "/authorize?" (request) } enctype="multipart/form-data" {
            label.field for="name" { "Full name" }
            input #name name="name" value="Jane Doe" autocomplete="off" maxlength="80" required;
            label.field for="birthdate" { "Date of birth" }
            input #birthdate name="birthdate" type="date" value="1990-04-12" required;
            label.field for="picture" { "A picture of your passport" }
            input #picture name="picture" type="file" accept="image/png,image/jpeg,image/webp"
                aria-describedby="picture-hint";
            p.quiet #picture-hint {
                "Do not use a real one. Without a file, a made-up one with your name is used."
            }
            div.actions {
                button.primary #continue type="submit" name="answer" value="continue" { "Send to Lantern ID" }
                button #decline type="submit" name="answer" value="decline" formnovalidate { "No, take me back" }
            }
        }
    };
    Page { form_to: application, ..Page::new(BRAND, "Who are you?", body) }
}

pub fn problem(title: &str, text: &str) -> Page {
    let body = html! {
        article.card.status.bad { div.headline { span.sign aria-hidden="true" {} div { h1 { (title) } p { (text) } } } }
    };
    Page { status: StatusCode::BAD_REQUEST, ..Page::new(BRAND, title, body) }
}

pub fn desk(cases: Markup) -> Page {
    let body = html! {
        section.hero { h1 { "Passports to check" } p.lead { "Each person waits until you decide." } }
        (cases)
    };
    Page::new(DESK, "Passports to check", body)
}

/// The cases. Those that wait come first.
pub fn cases(cases: &[Case]) -> Markup {
    let numbered = || cases.iter().enumerate().rev();
    let waiting = numbered().filter(|(_, case)| !case.process.is_decided() && case.verdict.is_none()).count();
    html! {
        div #waiting { p.quiet data-part="count" data-announce { @match waiting {
            0 => { "No one is waiting." }
            1 => { "One person is waiting." }
            waiting => { (waiting) " people are waiting." }
        } } }
        @for (number, case) in numbered().filter(|(_, case)| !is_over(case)) { (waiting_case(number, case)) }
        @for (number, case) in numbered().filter(|(_, case)| is_over(case)) { (decided_case(number, case)) }
    }
}

fn is_over(case: &Case) -> bool {
    case.verdict.is_some() || case.process.is_decided()
}

fn waiting_case(number: usize, case: &Case) -> Markup {
    let has_come_back = case.identifier().is_some();
    html! {
        article.card.case id={ "case-" (number) } aria-labelledby={ "name-" (number) } {
            (passport(number, case))
            div {
                h2 id={ "name-" (number) } tabindex="-1" { (case.name) }
                p.quiet data-part="asked" {
                    "Born " (case.birthdate) " · "
                    @match case.process.polls() {
                        _ if !has_come_back => { "the application has not sent the code yet" }
                        1 => { "the application has asked once" }
                        polls => { "the application has asked " (polls) " times" }
                    }
                }
                div data-part="progress" {
                    @if let Some(progress) = &case.progress { p.says { span.label { "Progress shown" } (progress) } }
                }
                form.decide method="post" action={ "/desk/" (number) } {
                    label.field for={ "text-" (number) } { "A message, for progress or for a refusal" }
                    input id={ "text-" (number) } name="text" maxlength="200" autocomplete="off"
                        placeholder="The photo is being compared";
                    div.actions {
                        (button(number, "approve", "Approve", "good"))
                        (button(number, "refuse", "Refuse", "bad"))
                        (button(number, "progress", "Send progress", ""))
                        (button(number, "expire", "Let it expire", ""))
                    }
                    details id={ "trouble-" (number) } {
                        summary { "Simulate trouble" }
                        div.actions {
                            (button(number, "slow_down", "Ask to slow down", ""))
                            (button(number, "forge", "Approve with a false signature", ""))
                            (button(number, "lose", "Approve and lose the answer", ""))
                            (button(number, "forget", "Forget the process", ""))
                        }
                    }
                }
            }
        }
    }
}

fn decided_case(number: usize, case: &Case) -> Markup {
    let word = match case.verdict {
        Some(verdict) => verdict,
        None if case.process.is_cancelled() => "cancelled by the application",
        None => "expired",
    };
    html! {
        article.card.case.over id={ "case-" (number) } {
            (passport(number, case))
            div { h2 { (case.name) } p { span.badge.calm { (word) } } }
        }
    }
}

fn passport(number: usize, case: &Case) -> Markup {
    html! { img.passport src={ "/desk/" (number) "/picture" } alt={ "Passport of " (case.name) } width="240" height="160"; }
}

fn button(number: usize, decision: &str, label: &str, class: &str) -> Markup {
    html! {
        button.(class) id={ (decision) "-" (number) } type="submit" name="decision" value=(decision) { (label) }
    }
}

/// A made-up passport.
pub fn specimen(name: &str, birthdate: &str) -> Markup {
    html! {
        (PreEscaped(r#"<?xml version="1.0" encoding="UTF-8"?>"#))
        svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 360 240" {
            rect width="360" height="240" rx="14" fill="#f5efe2" {}
            rect width="360" height="44" rx="14" fill="#5b2a86" {}
            rect y="30" width="360" height="14" fill="#5b2a86" {}
            text x="18" y="30" font-family="sans-serif" font-size="17" font-weight="bold" fill="#fff" {
                "REPUBLIC OF SPECIMEN"
            }
            rect x="20" y="62" width="96" height="116" rx="6" fill="#dcd3bd" {}
            circle cx="68" cy="106" r="24" fill="#b98d6b" {}
            path d="M44 100q4-26 24-26t24 26q-8-14-24-14t-24 14" fill="#4a3426" {}
            path d="M28 178q4-42 40-42t40 42z" fill="#5b2a86" {}
            g font-family="sans-serif" fill="#6b6250" font-size="10" {
                text x="136" y="76" { "NAME" }
                text x="136" y="116" { "DATE OF BIRTH" }
                text x="136" y="156" { "NUMBER" }
            }
            g font-family="sans-serif" fill="#222" font-size="17" {
                text x="136" y="96" { (name) }
                text x="136" y="136" { (birthdate) }
                text x="136" y="176" { "X0000000" }
            }
            text x="20" y="218" font-family="monospace" font-size="14" fill="#6b6250" {
                "P<SPECIMEN<<NOT<A<REAL<PASSPORT<<<<<<"
            }
        }
    }
}
