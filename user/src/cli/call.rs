//! `parlor get`: one call of a peer's callback.

use parlor_user::{SendError, Value};

use super::args::{Get, Settings};
use super::error::Error;
use super::output;
use super::session::join_anyhow;

pub(super) async fn get(settings: &Settings, call: Get) -> Result<(), Error> {
    let user = join_anyhow(settings).await?;
    let peer = user.peer(call.peer.as_str()).map_err(SendError::Name)?;
    let argument = call.argument.unwrap_or(Value::Nil);
    let answer = peer.get::<_, Value>(call.callback.as_str(), &argument).timeout(call.timeout).await;
    let printed = match answer {
        Ok(answer) => output::print(&output::json(&answer.to_json())),
        Err(error) => Err(error.into()),
    };
    user.leave().await;
    printed
}
