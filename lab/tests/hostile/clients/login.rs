//! From Hello to Welcome: who is out of turn, lies, guesses, or has no name.

use anyhow::{Context, Result, bail, ensure};
use parlor_lab::hostile::client::{Client, Who, secret};
use parlor_lab::hostile::outcome::Outcome::{self, Closed, LoginRefused, Served};
use parlor_lab::hostile::outcome::{Cost, without_numbers};
use parlor_protocol::identity::{Identity, Purpose};
use parlor_protocol::limits::PASSWORD_BYTES;
use parlor_protocol::refusal::{CloseCode, LoginRefusal};
use parlor_protocol::wire::control::{Hello, Introduce, LENGTH_BYTES, ToRoom, ToUser, login_proof_message};
use parlor_room::admin::{AdminRequest, AdminResponse};
use parlor_room::password::PasswordHash;

use super::Place::{Accounts, Open, Password};
use super::{PASSWORD, Place, Scene};
use crate::table::Row;

/// What a guess costs is added up where nothing takes its time; bcrypt does.
const GUESSES: Cost = Cost::Counts;
/// Four at once are over the bar, whatever they decay by meanwhile.
const LIES: Cost = Cost::AddsUp(4);

pub(super) fn rows() -> Vec<(Place, Row<Scene>)> {
    use CloseCode::{LimitExceeded, Malformed, Unexpected};
    use LoginRefusal as No;
    let waits = || LoginRefused(No::TooManyAttempts { seconds: 0 });
    vec![
        (
            Open,
            Row::new("a Login comes before the Hello", |s| Box::pin(without_hello(s)), Closed(Unexpected))
                .costs(Cost::Bars),
        ),
        (
            Open,
            Row::new(
                "a second Hello comes in place of a Login",
                |s| Box::pin(greets_twice(s)),
                Closed(Unexpected),
            )
            .costs(Cost::Bars),
        ),
        (
            Open,
            Row::new(
                "an Introduce comes before the Login",
                |s| Box::pin(asks_too_early(s)),
                Closed(Unexpected),
            )
            .costs(Cost::Bars),
        ),
        (
            Open,
            Row::new("a Ping comes before the Login", |s| Box::pin(pings_too_early(s)), Closed(Unexpected))
                .costs(Cost::Bars),
        ),
        (
            Accounts,
            Row::new(
                "a second Login comes while the first one's password is checked",
                |s| Box::pin(logs_in_at_once(s)),
                Closed(Unexpected),
            )
            .costs(Cost::Bars),
        ),
        (
            Open,
            Row::new(
                "a Login's proof is of another TLS connection",
                |s| Box::pin(replays_proof(s)),
                LoginRefused(No::Proof),
            )
            .costs(LIES),
        ),
        (
            Open,
            Row::new(
                "a Login's proof is for another name",
                |s| Box::pin(proves_another_name(s)),
                LoginRefused(No::Proof),
            )
            .costs(LIES),
        ),
        (
            Open,
            Row::new(
                "a Login's proof is by another identity",
                |s| Box::pin(proves_by_another(s)),
                LoginRefused(No::Proof),
            )
            .costs(LIES),
        ),
        (
            Open,
            Row::new(
                "a Login's proof was made for another purpose",
                |s| Box::pin(proves_otherwise(s)),
                LoginRefused(No::Proof),
            )
            .costs(LIES),
        ),
        (
            Open,
            Row::new(
                "a Login's handshake key is certified by another identity",
                |s| Box::pin(steals_a_key(s)),
                LoginRefused(No::Proof),
            )
            .costs(LIES),
        ),
        (
            Accounts,
            Row::new("a password is wrong", |s| Box::pin(guesses(s)), LoginRefused(No::Credentials))
                .costs(GUESSES),
        ),
        (
            Accounts,
            Row::new("a name has no account", |s| Box::pin(is_unknown(s)), LoginRefused(No::Credentials))
                .costs(GUESSES),
        ),
        (
            Accounts,
            Row::new(
                "a guest comes where names are accounts",
                |s| Box::pin(is_guest(s)),
                LoginRefused(No::PasswordNeeded),
            ),
        ),
        (
            Accounts,
            Row::new(
                "a guest brings an account's password",
                |s| Box::pin(is_guest_with_password(s)),
                LoginRefused(No::Credentials),
            )
            .costs(GUESSES),
        ),
        (
            Accounts,
            Row::new(
                "a password is longer than bcrypt reads",
                |s| Box::pin(says_long_password(s)),
                LoginRefused(No::Credentials),
            )
            .costs(GUESSES),
        ),
        (
            Accounts,
            Row::new("a password has a NUL in it", |s| Box::pin(says_nul(s)), LoginRefused(No::Credentials))
                .costs(GUESSES),
        ),
        (
            Password,
            Row::new(
                "the room password is wrong",
                |s| Box::pin(guesses_sesame(s)),
                LoginRefused(No::RoomPassword),
            )
            .costs(GUESSES),
        ),
        (
            Password,
            Row::new(
                "the room password is missing",
                |s| Box::pin(tries_without(s)),
                LoginRefused(No::RoomPassword),
            ),
        ),
        (
            Accounts,
            Row::new(
                "three refusals are not enough for one connection",
                |s| Box::pin(tries_four_times(s)),
                Closed(LimitExceeded),
            ),
        ),
        (
            Accounts,
            Row::new(
                "an account is guessed at a fourth time in a minute from one address",
                |s| Box::pin(guesses_on(s)),
                waits(),
            ),
        ),
        (
            Accounts,
            Row::new(
                "an account is guessed at from one address and used from another",
                |s| Box::pin(owner_gets_in(s)),
                Served,
            ),
        ),
        (
            Open,
            Row::new(
                "a name holds an escape sequence",
                |s| Box::pin(is_called(s, b"\x1b[31mroot")),
                Closed(Malformed),
            )
            .costs(Cost::Bars),
        ),
        (
            Open,
            Row::new(
                "a name holds a mark that turns text around",
                |s| Box::pin(is_called(s, "root\u{202e}gnp".as_bytes())),
                Closed(Malformed),
            )
            .costs(Cost::Bars),
        ),
        (
            Open,
            Row::new(
                "a name holds a line feed",
                |s| Box::pin(is_called(s, b"Foo\nBar logged in")),
                Closed(Malformed),
            )
            .costs(Cost::Bars),
        ),
        (
            Open,
            Row::new("a name is no UTF-8", |s| Box::pin(is_called(s, b"Foo\xff\xfe")), Closed(Malformed))
                .costs(Cost::Bars),
        ),
        (
            Open,
            Row::new("a name is empty", |s| Box::pin(is_called(s, b"")), Closed(Malformed)).costs(Cost::Bars),
        ),
        (
            Open,
            Row::new("a name has 33 letters", |s| Box::pin(is_called(s, &[b'a'; 33])), Closed(Malformed))
                .costs(Cost::Bars),
        ),
        (
            Open,
            Row::new(
                "a name is a letter that looks like another",
                |s| Box::pin(is_called(s, "F\u{43e}\u{43e}".as_bytes())),
                Closed(Malformed),
            )
            .costs(Cost::Bars),
        ),
    ]
}

async fn without_hello(scene: &Scene) -> Result<Outcome> {
    let mut client = scene.connected().await?;
    let login = scene.who(1).login(&client.exporter)?;
    client.send(&ToRoom::Login(Box::new(login))).await?;
    client.end().await
}

async fn greets_twice(scene: &Scene) -> Result<Outcome> {
    let mut client = scene.greeted().await?;
    client.send(&ToRoom::Hello(Hello::new("again"))).await?;
    client.end().await
}

async fn asks_too_early(scene: &Scene) -> Result<Outcome> {
    let mut client = scene.greeted().await?;
    client.send(&ToRoom::Introduce(Introduce { request: 1, peer: "Foo".parse()? })).await?;
    client.end().await
}

async fn pings_too_early(scene: &Scene) -> Result<Outcome> {
    let mut client = scene.greeted().await?;
    client.send(&ToRoom::Ping(1)).await?;
    client.end().await
}

async fn logs_in_at_once(scene: &Scene) -> Result<Outcome> {
    // The check goes on for longer than the Room may need from the first to the second.
    let name = format!("slow{}", scene.number);
    adds(scene, &name, PasswordHash::dummy(13)).await?;
    let mut client = scene.greeted().await?;
    let who = Who { name, ..scene.who(1).password("wrong")? };
    let login = ToRoom::Login(Box::new(who.login(&client.exporter)?)).encode();
    client.send_bytes(&[login.clone(), login].concat()).await?;
    client.end().await
}

async fn replays_proof(scene: &Scene) -> Result<Outcome> {
    lies(scene, &scene.who(1)).await
}

/// Shows the proof of another connection.
pub(super) async fn lies(scene: &Scene, who: &Who) -> Result<Outcome> {
    let first = scene.greeted().await?;
    let proof = Some(who.login(&first.exporter)?.proof);
    scene.greeted().await?.tries(&Who { proof, ..who.clone() }).await
}

async fn proves_another_name(scene: &Scene) -> Result<Outcome> {
    let mut client = scene.greeted().await?;
    let proof = Some(scene.who(2).login(&client.exporter)?.proof);
    let who = Who { proof, seed: 2, ..scene.who(1) };
    client.tries(&who).await
}

async fn proves_by_another(scene: &Scene) -> Result<Outcome> {
    let mut client = scene.greeted().await?;
    let proof = Some(Who { seed: 2, ..scene.who(1) }.login(&client.exporter)?.proof);
    client.tries(&Who { proof, ..scene.who(1) }).await
}

async fn proves_otherwise(scene: &Scene) -> Result<Outcome> {
    let mut client = scene.greeted().await?;
    let who = scene.who(1);
    let message = login_proof_message(&client.exporter, &who.name.parse()?);
    let proof = Some(who.identity().sign(Purpose::RoomProof, &message));
    client.tries(&Who { proof, ..who }).await
}

async fn steals_a_key(scene: &Scene) -> Result<Outcome> {
    let mut client = scene.greeted().await?;
    let noise = Some(Identity::from_seed(&[2; 32]).noise_certificate());
    client.tries(&Who { noise, ..scene.who(1) }).await
}

async fn guesses(scene: &Scene) -> Result<Outcome> {
    let mut client = scene.greeted().await?;
    client.tries(&Who { name: scene.account(), ..scene.who(1).password("wrong")? }).await
}

async fn is_unknown(scene: &Scene) -> Result<Outcome> {
    scene.greeted().await?.tries(&scene.who(1).password(PASSWORD)?).await
}

async fn is_guest(scene: &Scene) -> Result<Outcome> {
    scene.greeted().await?.tries(&Who { name: "guest-abc123".to_owned(), ..scene.who(1) }).await
}

async fn is_guest_with_password(scene: &Scene) -> Result<Outcome> {
    let guest = Who { name: format!("guest-{}", scene.number), ..scene.who(1).password(PASSWORD)? };
    scene.greeted().await?.tries(&guest).await
}

/// A login whose password is not what this program would let anybody type.
async fn tries_password(scene: &Scene, name: String, password: &str) -> Result<Outcome> {
    let mut client = scene.greeted().await?;
    let typed = "0".repeat(password.len().min(PASSWORD_BYTES));
    let who = Who { name, ..scene.who(1).password(&typed)? };
    let frame = ToRoom::Login(Box::new(who.login(&client.exporter)?)).encode();
    let at =
        frame.windows(typed.len()).position(|bytes| bytes == typed.as_bytes()).context("the password")?;
    let frame = replaced(&frame, at, typed.len(), password.as_bytes());
    for _ in 0..100 {
        client.send_bytes(&frame).await?;
        match client.next().await? {
            Some(ToUser::LoginRefused(LoginRefusal::Busy { retry_after_ms })) => {
                tokio::time::sleep(std::time::Duration::from_millis(retry_after_ms.into())).await;
            }
            Some(ToUser::LoginRefused(refusal)) => return Ok(LoginRefused(without_numbers(refusal))),
            Some(ToUser::Closing(closing)) => return Ok(Closed(closing.code)),
            other => bail!("{other:?}"),
        }
    }
    bail!("always busy")
}

async fn adds(scene: &Scene, name: &str, hash: PasswordHash) -> Result<()> {
    let add = AdminRequest::UserAdd { name: name.parse()?, hash };
    ensure!(scene.venue.room.admin(add).await == AdminResponse::Done);
    Ok(())
}

async fn says_long_password(scene: &Scene) -> Result<Outcome> {
    // bcrypt would read no further than the account's password goes.
    let longest = "1".repeat(PASSWORD_BYTES);
    let (name, hash) = (format!("long{}", scene.number), PasswordHash::make(&longest, 10, [5; 16])?);
    adds(scene, &name, hash).await?;
    tries_password(scene, name, &(longest + "and more")).await
}

async fn says_nul(scene: &Scene) -> Result<Outcome> {
    tries_password(scene, scene.account(), &format!("{PASSWORD}\0and more")).await
}

async fn guesses_sesame(scene: &Scene) -> Result<Outcome> {
    let who = Who { room_password: Some(secret("wrong")?), ..scene.who(1) };
    scene.greeted().await?.tries(&who).await
}

async fn tries_without(scene: &Scene) -> Result<Outcome> {
    scene.greeted().await?.tries(&scene.who(1)).await
}

async fn tries_four_times(scene: &Scene) -> Result<Outcome> {
    let mut client = scene.greeted().await?;
    for _ in 0..3 {
        let refused = client.tries(&Who { name: scene.account(), ..scene.who(1) }).await?;
        ensure!(refused == LoginRefused(LoginRefusal::PasswordNeeded), "{refused}");
    }
    client.send(&ToRoom::Login(Box::new(scene.who(1).login(&client.exporter)?))).await?;
    client.end().await
}

/// Three guesses, which are not yet enough to bar the address.
async fn guess_thrice(scene: &Scene) -> Result<()> {
    for _ in 0..3 {
        let refused = guesses(scene).await?;
        ensure!(refused == LoginRefused(LoginRefusal::Credentials), "{refused}");
    }
    Ok(())
}

async fn guesses_on(scene: &Scene) -> Result<Outcome> {
    guess_thrice(scene).await?;
    let right = Who { name: scene.account(), ..scene.who(1).password(PASSWORD)? };
    scene.greeted().await?.tries(&right).await
}

async fn owner_gets_in(scene: &Scene) -> Result<Outcome> {
    guess_thrice(scene).await?;
    let right = Who { name: scene.account(), ..scene.who(1).password(PASSWORD)? };
    Client::greeted(scene.ground.elsewhere(), &scene.room()).await?.tries(&right).await
}

/// A login under a name that no program lets anybody have.
async fn is_called(scene: &Scene, name: &'static [u8]) -> Result<Outcome> {
    let mut client = scene.greeted().await?;
    let who = scene.who(1);
    let frame = ToRoom::Login(Box::new(who.login(&client.exporter)?)).encode();
    client.send_bytes(&replaced(&frame, LENGTH_BYTES + 2, who.name.len(), name)).await?;
    client.end().await
}

/// A frame with a text of less than 251 bytes in place of another.
fn replaced(frame: &[u8], at: usize, len: usize, text: &[u8]) -> Vec<u8> {
    let mut frame = frame.to_vec();
    frame.splice(at - 1..at + len, [&[text.len() as u8], text].concat());
    let length = (frame.len() - LENGTH_BYTES) as u32;
    frame[..LENGTH_BYTES].copy_from_slice(&length.to_le_bytes());
    frame
}
