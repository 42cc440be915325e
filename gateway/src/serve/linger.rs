//! The end of a connection whose last request was refused before all of it came. Closed at once, with
//! bytes unread, the kernel would reset it, and the client lose the answer that is on its way. So the
//! answer is followed by the end of our side, and what still comes is read and dropped: up to a bound
//! of bytes, of time and of silence, and no longer than the seat is free and the house open.

use super::connection::House;
use std::io::ErrorKind;
use std::time::Duration;
use tokio::net::TcpStream;

/// So many bytes are dropped.
pub(super) const MOST: usize = 128 << 20;
/// For so long.
pub(super) const LIMIT: Duration = Duration::from_secs(10);
/// Who says nothing for so long has heard the answer, or is gone.
pub(super) const SILENCE: Duration = Duration::from_secs(2);
/// Bytes at a time.
const PIECE: usize = 4 << 10;

/// Returns when the client is done, or was waited for long enough. Our side is shut already.
pub(super) async fn linger(socket: &TcpStream, house: &House) {
    tokio::select! {
        () = dropped(socket) => {}
        () = tokio::time::sleep(LIMIT) => {}
        () = house.closing.cancelled() => {}
        () = house.seats.wanted() => {}
    }
}

async fn dropped(socket: &TcpStream) {
    let (mut piece, mut heard) = (vec![0; PIECE], 0);
    while heard < MOST {
        // One who writes without end leaves the others their turn.
        tokio::task::consume_budget().await;
        match socket.try_read(&mut piece) {
            Ok(0) => return,
            Ok(n) => heard += n,
            Err(e) if e.kind() == ErrorKind::WouldBlock => {
                if !matches!(tokio::time::timeout(SILENCE, socket.readable()).await, Ok(Ok(()))) {
                    return;
                }
            }
            Err(_) => return,
        }
    }
}
