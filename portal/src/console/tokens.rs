//! API tokens.

use askama::Template;
use axum::extract::State;
use axum::response::{IntoResponse, Redirect};
use serde::Deserialize;

use super::extract::{Form, Path};
use super::filters;
use super::page::{self, Page, Shown};
use super::session::Session;
use crate::actions::tokens as actions;
use crate::actions::tokens::NewToken;
use crate::problem::Problem;
use crate::state::AppState;
use crate::view::TokenView;

#[derive(Template)]
#[template(path = "tokens.html")]
struct TokensPage {
    page: Page,
    tokens: Vec<TokenView>,
    minted: Option<String>,
    problem: Option<String>,
}

async fn render(
    state: &AppState,
    session: Session,
    minted: Option<String>,
    problem: Option<String>,
) -> Result<TokensPage, Problem> {
    let tokens = actions::list(state, &session.caller).await?;
    Ok(TokensPage { page: Page::new("tokens", session), tokens, minted, problem })
}

pub(super) async fn list(State(state): State<AppState>, session: Session) -> Shown {
    page::show(&render(&state, session, None, None).await?)
}

#[derive(Deserialize)]
pub(super) struct TokenForm {
    csrf: String,
    name: String,
    scope: String,
    ttl_days: i64,
}

pub(super) async fn create(
    State(state): State<AppState>,
    session: Session,
    Form(form): Form<TokenForm>,
) -> Shown {
    session.check(&form.csrf)?;
    let new = NewToken { name: form.name, scope: Some(form.scope), ttl_days: Some(form.ttl_days) };
    match actions::create(&state, &session.caller, &new).await {
        Ok(minted) => page::show(&render(&state, session, Some(minted.token), None).await?),
        Err(problem) if problem.status < 500 => {
            let detail = problem.detail.clone();
            page::refused(&render(&state, session, None, Some(detail)).await?, &problem)
        }
        Err(problem) => Err(problem.into()),
    }
}

#[derive(Deserialize)]
pub(super) struct RevokeForm {
    csrf: String,
}

pub(super) async fn revoke(
    State(state): State<AppState>,
    session: Session,
    Path(token): Path<String>,
    Form(form): Form<RevokeForm>,
) -> Shown {
    session.check(&form.csrf)?;
    actions::revoke(&state, &session.caller, &token).await?;
    Ok(Redirect::to("/tokens").into_response())
}
