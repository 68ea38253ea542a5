//! Signing in and out, and changing one's password.

use askama::Template;
use axum::extract::State;
use axum::http::{HeaderMap, header};
use axum::response::{IntoResponse, Redirect, Response};
use serde::Deserialize;

use super::assets;
use super::extract::Form;
use super::page::{self, Shown};
use super::session::{self, AnySession, Session};
use crate::actions::sign_in as passwords;
use crate::api::extract::Remote;
use crate::state::AppState;

#[derive(Template)]
#[template(path = "door.html")]
struct Door {
    title: &'static str,
    lead: &'static str,
    error: Option<String>,
    /// Present on the page that changes the password.
    csrf: Option<String>,
    login: String,
    css: String,
    js: String,
    logo: String,
}

impl Door {
    fn sign_in(login: String, error: Option<String>) -> Self {
        Self {
            title: "Sign in",
            lead: "Kubernetes clusters, ready in seconds.",
            error,
            csrf: None,
            login,
            css: assets::url("app.css"),
            js: assets::url("app.js"),
            logo: assets::url("logo.svg"),
        }
    }

    fn password(session: &Session, error: Option<String>) -> Self {
        let lead = match session.caller.user.must_change {
            true => "You signed in with a one-time password. Choose your own to go on.",
            false => "All your other sessions end.",
        };
        let door = Self::sign_in(String::new(), error);
        Self { title: "Choose a password", lead, csrf: Some(session.csrf.clone()), ..door }
    }
}

pub(super) async fn sign_in_page() -> Shown {
    page::show(&Door::sign_in(String::new(), None))
}

#[derive(Deserialize)]
pub(super) struct SignIn {
    login: String,
    password: String,
}

pub(super) async fn sign_in(
    State(state): State<AppState>,
    Remote(remote): Remote,
    headers: HeaderMap,
    Form(form): Form<SignIn>,
) -> Shown {
    match passwords::check(&state, &form.login, form.password, &remote).await {
        Ok(user) => {
            let agent = headers.get(header::USER_AGENT).and_then(|value| value.to_str().ok());
            let cookie = session::start(&state, &user, &remote, agent.unwrap_or("")).await?;
            Ok(([(header::SET_COOKIE, cookie)], Redirect::to("/clusters")).into_response())
        }
        Err(problem) if problem.status < 500 => {
            page::refused(&Door::sign_in(form.login, Some(problem.detail.clone())), &problem)
        }
        Err(problem) => Err(problem.into()),
    }
}

#[derive(Deserialize)]
pub(super) struct SignOut {
    csrf: String,
}

pub(super) async fn sign_out(
    State(state): State<AppState>,
    AnySession(session): AnySession,
    Form(form): Form<SignOut>,
) -> Shown {
    session.check(&form.csrf)?;
    let cookie = session::end(&state, &session.id).await?;
    Ok(([(header::SET_COOKIE, cookie)], Redirect::to("/sign-in")).into_response())
}

pub(super) async fn password_page(AnySession(session): AnySession) -> Shown {
    page::show(&Door::password(&session, None))
}

#[derive(Deserialize)]
pub(super) struct ChangePassword {
    csrf: String,
    old_password: String,
    new_password: String,
}

pub(super) async fn change_password(
    State(state): State<AppState>,
    AnySession(session): AnySession,
    headers: HeaderMap,
    Form(form): Form<ChangePassword>,
) -> Shown<Response> {
    session.check(&form.csrf)?;
    let (login, remote) = (&session.caller.user.login, &session.caller.remote);
    let changed = async {
        let user = passwords::check(&state, login, form.old_password.clone(), remote).await?;
        let new = form.new_password;
        passwords::change_password(&state, &user, &form.old_password, new).await?;
        Ok(user)
    };
    match changed.await {
        Ok(user) => {
            let agent = headers.get(header::USER_AGENT).and_then(|value| value.to_str().ok());
            let cookie = session::start(&state, &user, remote, agent.unwrap_or("")).await?;
            Ok(([(header::SET_COOKIE, cookie)], Redirect::to("/clusters")).into_response())
        }
        Err(problem) => {
            let problem: crate::problem::Problem = problem;
            page::refused(&Door::password(&session, Some(problem.detail.clone())), &problem)
        }
    }
}
