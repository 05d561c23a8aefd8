//! Starts a Room in this process, lets Foo and Bar join it, sends both ways, calls a callback each way, and
//! prints the rung and round trip of each.
//!
//! ```sh
//! cargo run --release --example first_run
//! ```

use std::time::Instant;

use parlor_room::Room;
use parlor_room::config::RoomConfig;
use parlor_user::{Inbox, Peer, User};

type Outcome = Result<(), Box<dyn std::error::Error>>;

#[tokio::main]
async fn main() -> Outcome {
    let config = RoomConfig { listen: vec!["127.0.0.1:0".parse()?], ..RoomConfig::default() };
    let room = Room::bind(config).await?;
    let address = room.addresses().first().ok_or("the Room listens nowhere")?.to_string();
    println!("room  {address}");

    let foo = User::builder("Foo").room(&address).ephemeral().join().await?;
    let bar = User::builder("Bar").room(&address).ephemeral().join().await?;
    for user in [&foo, &bar] {
        let name = user.name().clone();
        user.on_get("greet", move |ctx, text: String| {
            let name = name.clone();
            async move { Ok::<_, String>(format!("{name} heard {text:?} from {}", ctx.from())) }
        })?
        .forever();
    }

    send(&foo.peer("Bar")?, &mut bar.inbox(), "Hello!").await?;
    send(&bar.peer("Foo")?, &mut foo.inbox(), "Hello yourself!").await?;
    call(&foo.peer("Bar")?, "are you there?").await?;
    call(&bar.peer("Foo")?, "and you?").await?;

    foo.leave().await;
    bar.leave().await;
    room.shutdown().await;
    Ok(())
}

/// Sends a text and waits until it stands in the other's inbox.
async fn send(to: &Peer, inbox: &mut Inbox, text: &str) -> Outcome {
    let started = now();
    to.send(text).await?.delivered().await?;
    let took = started.elapsed();
    let message = inbox.next().await.ok_or("the inbox closed")?;
    println!(
        "send  {} -> {}: {:?}  {} in {took:.0?}",
        message.from(),
        to.name(),
        message.decode::<String>()?,
        rung(to)
    );
    Ok(())
}

/// Calls the other's `greet`.
async fn call(peer: &Peer, text: &str) -> Outcome {
    let started = now();
    let answer: String = peer.get("greet", text).await?;
    let took = started.elapsed();
    println!("get   {}: {answer}  {} in {took:.0?}", peer.name(), rung(peer));
    Ok(())
}

#[expect(clippy::disallowed_methods, reason = "a program measures what it shows")]
fn now() -> Instant {
    Instant::now()
}

fn rung(peer: &Peer) -> String {
    peer.path().map_or_else(|| "no path".to_owned(), |path| format!("[{}]", path.rung))
}
