//! Whether a user's listener answers at an address: the Room dials it and asks something that only that user can
//! answer. A stranger at the address gets 34 bytes and is left alone.

use std::net::SocketAddr;
use std::time::Duration;

use parlor_protocol::wire::preface;
use subtle::ConstantTimeEq;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

/// For everything: two round trips across the world and a lost packet.
const DEADLINE: Duration = Duration::from_secs(2);

/// True if the listener with this key answers at `address` in time. How many are asked at once is the core's affair.
pub(crate) async fn reaches(address: SocketAddr, key: [u8; 32], nonce: [u8; 32]) -> bool {
    let answer = timeout(DEADLINE, ask(address, nonce)).await;
    let expected = preface::check_answer(&key, &nonce);
    matches!(answer, Ok(Ok(answer)) if answer.ct_eq(&expected).into())
}

async fn ask(address: SocketAddr, nonce: [u8; 32]) -> std::io::Result<[u8; 32]> {
    let mut stream = TcpStream::connect(address).await?;
    stream.write_all(&preface::check(&nonce)).await?;
    let mut answer = [0; 32];
    stream.read_exact(&mut answer).await?;
    Ok(answer)
}

#[cfg(test)]
mod tests {
    use tokio::net::{TcpListener, TcpSocket};

    use super::*;

    async fn checked(listener_key: [u8; 32]) -> bool {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let answers = async {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut asked = [0; preface::CHECK_BYTES];
            stream.read_exact(&mut asked).await.unwrap();
            let nonce = preface::parse_check(&asked).unwrap();
            stream.write_all(&preface::check_answer(&listener_key, &nonce)).await.unwrap();
        };
        tokio::join!(reaches(address, [1; 32], [2; 32]), answers).0
    }

    #[tokio::test]
    async fn only_the_users_own_listener_passes() {
        assert!(checked([1; 32]).await);
        assert!(!checked([3; 32]).await);
    }

    #[tokio::test]
    async fn where_nobody_listens_nobody_is_reached() {
        // Bound and not listening, it refuses, and nobody else can have its port.
        let nobody = TcpSocket::new_v4().unwrap();
        nobody.bind("127.0.0.1:0".parse().unwrap()).unwrap();
        assert!(!reaches(nobody.local_addr().unwrap(), [1; 32], [2; 32]).await);
    }
}
