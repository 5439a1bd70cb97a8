import NBD
import TLS

/// The TLS of one client: ciphertext on the socket's side, the session's bytes on the other.
///
/// **Memory.** Beside the library's two records: what is being sent, 80 KiB at most, and answers of the library itself to
/// what a client sends, whose input stops (``isCongested``) when they pile up.
/// **Threads.** The reactor's.
final class SecureTransport {
    /// The server's, for the moment in which bytes pass through.
    final class Scratch {
        let record = UnsafeMutableRawBufferPointer.allocate(byteCount: TLSServerConnection.recordByteCount, alignment: 4096)
        let segments = UnsafeMutableBufferPointer<UnsafeRawBufferPointer>.allocate(capacity: 64)

        deinit {
            record.deallocate()
            segments.deallocate()
        }
    }

    /// Records are made until so much waits to be sent.
    private static let fillByteCount = 64 << 10
    private static let outgoingByteCount = 80 << 10
    /// So much of the socket's goes into the library at once, before what it makes of it is taken out.
    private static let feedByteCount = 16 << 10

    private let tls: TLSServerConnection
    private let scratch: Scratch
    /// What the socket sends from. Stays as it is until all of it was sent.
    private let outgoing = UnsafeMutableRawBufferPointer.allocate(byteCount: outgoingByteCount, alignment: 4096)
    private var outgoingCount = 0
    private var sentCount = 0
    /// What the session had still to say in the clear when TLS was agreed on; it goes out first.
    private(set) var plainByteCount: Int
    /// Nothing is encrypted any more.
    private var hasFinished = false

    init(_ context: TLSServerContext, plainByteCount: Int, scratch: Scratch) throws(TLSFailure) {
        tls = try TLSServerConnection(context)
        self.plainByteCount = plainByteCount
        self.scratch = scratch
    }

    deinit { outgoing.deallocate() }

    var userName: String? { tls.userName }
    /// The client will not send any more.
    var hasPeerFinished: Bool { tls.hasPeerFinished }
    /// All that was encrypted is out.
    var isDrained: Bool { plainByteCount == 0 && sentCount == outgoingCount && tls.outputByteCount == 0 }
    var hasOutput: Bool { !isDrained }
    /// The client does not take what its own messages call for.
    var isCongested: Bool { tls.outputByteCount > Self.outgoingByteCount }

    // MARK: from the socket

    /// Gives the session what the client says in `bytes`.
    func received(_ bytes: UnsafeRawBufferPointer, for session: inout Session) throws(TLSFailure) {
        do throws(TLSFailure) {
            try decrypt(bytes, for: &session)
        } catch {
            hasFinished = true
            throw error
        }
    }

    private func decrypt(_ bytes: UnsafeRawBufferPointer, for session: inout Session) throws(TLSFailure) {
        var rest = bytes
        while !rest.isEmpty, session.endReason == nil, !tls.hasPeerFinished {
            let part = UnsafeRawBufferPointer(rebasing: rest.prefix(Self.feedByteCount))
            rest = UnsafeRawBufferPointer(rebasing: rest.dropFirst(part.count))
            try tls.receive(part)
            if !tls.isEstablished {
                try tls.handshake()
                guard tls.isEstablished else { continue }
                session.tlsEstablished()
            }
            try deliver(to: &session)
        }
    }

    private func deliver(to session: inout Session) throws(TLSFailure) {
        while session.endReason == nil {
            let window = session.inputWindow
            let target = window.isEmpty ? scratch.record : window
            let count = try tls.read(into: target)
            guard count > 0 else { return }
            if window.isEmpty {
                session.received(placedByteCount: 0, spill: UnsafeRawBufferPointer(rebasing: target[..<count]))
            } else {
                session.received(placedByteCount: count, spill: UnsafeRawBufferPointer(start: nil, count: 0))
            }
        }
    }

    // MARK: to the socket

    /// What to send next, into `segments`; how many it filled. True in `answered` where an answer is encrypted to its last byte.
    func output(
        of session: inout Session, into segments: UnsafeMutableBufferPointer<UnsafeRawBufferPointer>, answered: inout Bool
    ) throws(TLSFailure) -> Int {
        if plainByteCount > 0 { return plainOutput(of: session, into: segments) }
        if sentCount == outgoingCount {
            if tls.isEstablished, !hasFinished {
                do throws(TLSFailure) {
                    answered = try encrypt(&session)
                } catch {
                    hasFinished = true
                    throw error
                }
            }
            sentCount = 0
            outgoingCount = tls.takeOutput(into: outgoing)
        }
        guard sentCount < outgoingCount else { return 0 }
        segments[0] = UnsafeRawBufferPointer(rebasing: outgoing[sentCount..<outgoingCount])
        return 1
    }

    /// So many bytes of what ``output(of:into:answered:)`` named are out.
    func sent(byteCount: Int, of session: inout Session) {
        guard plainByteCount == 0 else {
            session.sent(byteCount: byteCount)
            plainByteCount -= byteCount
            return
        }
        sentCount += byteCount
    }

    private func plainOutput(of session: borrowing Session, into segments: UnsafeMutableBufferPointer<UnsafeRawBufferPointer>) -> Int {
        let filled = session.output(into: segments)
        var left = plainByteCount
        for index in 0..<filled {
            segments[index] = UnsafeRawBufferPointer(rebasing: segments[index].prefix(left))
            left -= segments[index].count
            if left == 0 { return index + 1 }
        }
        return filled
    }

    /// Full records as far as there is something to say: small answers share one.
    private func encrypt(_ session: inout Session) throws(TLSFailure) -> Bool {
        var answered = false
        while tls.outputByteCount < Self.fillByteCount {
            let filled = session.output(into: scratch.segments)
            guard filled > 0 else { break }
            let first = scratch.segments[0]
            let record: UnsafeRawBufferPointer
            if first.count >= scratch.record.count {
                record = UnsafeRawBufferPointer(rebasing: first[..<scratch.record.count])
            } else {
                record = gather(filled)
            }
            try tls.write(record)
            if session.sent(byteCount: record.count) { answered = true }
        }
        return answered
    }

    private func gather(_ segmentCount: Int) -> UnsafeRawBufferPointer {
        var count = 0
        for segment in scratch.segments[..<segmentCount] where count < scratch.record.count {
            let part = min(segment.count, scratch.record.count - count)
            guard part > 0, let base = segment.baseAddress else { continue }
            (scratch.record.baseAddress! + count).copyMemory(from: base, byteCount: part)
            count += part
        }
        return UnsafeRawBufferPointer(rebasing: scratch.record[..<count])
    }

    /// Says to the client that nothing more comes; once.
    func finish() {
        guard !hasFinished else { return }
        hasFinished = true
        tls.finish()
    }
}
