//! The OP's page for users, which is its authorization endpoint. It asks for name, date of birth and a picture of the
//! passport.

use anyhow::Context;
use axum::extract::{Multipart, RawQuery, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Redirect, Response};
use bytes::Bytes;
use openid_deferred::testing::TestUser;
use url::Url;

use super::op::{CLIENT_ID, Case, Front, Picture};
use super::op_pages;

/// Shows the form. The request itself stays in the URL, so it is sent again with the form.
pub async fn ask(State(front): State<Front>, RawQuery(query): RawQuery) -> Response {
    match request(&front, query) {
        None => refused(),
        Some(request) => {
            let origin = Url::parse(&front.redirect_uri).map(|url| url.origin().ascii_serialization()).ok();
            op_pages::ask(request.query().unwrap_or_default(), origin).into_response()
        }
    }
}

/// Handles the form. The browser brings the code to the application, and the reviewers get a case.
pub async fn answer(
    State(front): State<Front>,
    RawQuery(query): RawQuery,
    form: Multipart,
) -> Result<Response, Response> {
    let request = request(&front, query).ok_or_else(refused)?;
    let answer = Answer::read(form).await.map_err(|error| {
        let page = op_pages::problem("We could not read that", &error.to_string());
        (StatusCode::BAD_REQUEST, page).into_response()
    })?;
    if answer.declines {
        return Ok(Redirect::to(&front.op.visit_and_decline(request).url()).into_response());
    }
    let subject = format!("{}-{}", answer.name.to_lowercase().replace(' ', "-"), answer.birthdate);
    let user = TestUser::new(&subject)
        .claim("name", answer.name.as_str())
        .claim("birthdate", answer.birthdate.as_str())
        .claim("email", "somebody@example.com")
        .interim_claim("name", answer.name.as_str())
        .interim_claim("birthdate", answer.birthdate.as_str());

    // Handle one user at a time, because the provider has one user for the next sign-in.
    let mut cases = front.cases();
    front.op.set_user(user);
    let back = front.op.visit(request);
    // The IETF draft has only the ordinary code.
    if back.parameter("deferred_code").or(back.parameter("code")).is_some() {
        let picture = answer.picture.unwrap_or_else(|| Picture {
            media_type: "image/svg+xml",
            bytes: op_pages::specimen(&answer.name, &answer.birthdate).into_string().into(),
        });
        let Answer { name, birthdate, .. } = answer;
        let process = front.op.last_process();
        cases.push(Case { process, name, birthdate, picture, progress: None, verdict: None });
        front.changed.send_replace(());
    }
    Ok(Redirect::to(&back.url()).into_response())
}

/// The authorization request for the provider behind this page. `None` if it is unknown where to send the user back.
/// The provider checks everything else.
fn request(front: &Front, query: Option<String>) -> Option<Url> {
    let mut url = Url::parse(&format!("{}/authorize", front.op.issuer())).ok()?;
    url.set_query(query.as_deref());
    let is = |name: &str, value: &str| {
        let mut values = url.query_pairs().filter(|(key, _)| key == name);
        values.next().is_some_and(|(_, found)| found == value) && values.next().is_none()
    };
    (is("client_id", CLIENT_ID) && is("redirect_uri", &front.redirect_uri)).then_some(url)
}

fn refused() -> Response {
    let text = "The application that sent you here is not known to us, or made a mistake. Nothing was done.";
    (StatusCode::BAD_REQUEST, op_pages::problem("This request cannot be processed", text)).into_response()
}

#[derive(Default)]
struct Answer {
    name: String,
    birthdate: String,
    picture: Option<Picture>,
    declines: bool,
}

impl Answer {
    async fn read(mut form: Multipart) -> anyhow::Result<Self> {
        let mut answer = Self::default();
        while let Some(field) = form.next_field().await? {
            match field.name() {
                Some("name") => answer.name = field.text().await?.trim().to_owned(),
                Some("birthdate") => answer.birthdate = field.text().await?,
                Some("answer") => answer.declines = field.text().await? == "decline",
                Some("picture") => {
                    let bytes = field.bytes().await?;
                    if !bytes.is_empty() {
                        answer.picture = Some(picture(bytes)?);
                    }
                }
                _ => {}
            }
        }
        let has_sane_name = (1..=80).contains(&answer.name.chars().count());
        let has_sane_date = answer.birthdate.len() == 10;
        anyhow::ensure!(
            answer.declines || (has_sane_name && has_sane_date),
            "Please give your name and date of birth."
        );
        Ok(answer)
    }
}

/// Accepts only files whose first bytes are those of a picture. The type that the browser sends is ignored, because an
/// SVG can contain scripts.
fn picture(bytes: Bytes) -> anyhow::Result<Picture> {
    let media_type = match bytes.get(..4) {
        Some(b"\x89PNG") => Some("image/png"),
        Some([0xff, 0xd8, 0xff, _]) => Some("image/jpeg"),
        Some(b"RIFF") => Some("image/webp"),
        _ => None,
    };
    Ok(Picture { media_type: media_type.context("The picture has to be a PNG, JPEG or WebP file.")?, bytes })
}
