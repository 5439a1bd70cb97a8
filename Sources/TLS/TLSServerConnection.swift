internal import COpenSSL

/// The server's side of one TLS connection, without a socket: what came from the peer goes into ``receive(_:)``, what
/// goes to it comes from ``takeOutput(into:)``; between them plaintext is read and written.
///
/// Who feeds it piecemeal, and reads after each piece until nothing comes, bounds the memory that it takes: a record of
/// 16 KiB each way, and a client's greeting of 128 KiB at most.
/// **Threads.** One at a time.
public final class TLSServerConnection {
    /// The most plaintext that one record carries.
    public static let recordByteCount = 16_384

    private let context: TLSServerContext
    private var pointer: OpaquePointer!
    private var input: OpaquePointer?
    private var output: OpaquePointer?
    /// Who the client says it is.
    private var user: (name: String, isKnown: Bool)?
    public private(set) var isEstablished = false
    /// The peer has said that nothing more comes (close_notify).
    public private(set) var hasPeerFinished = false
    private var failure: TLSFailure?

    /// - Throws: ``TLSFailure/unavailable(_:)`` where memory is short.
    public init(_ context: TLSServerContext) throws(TLSFailure) {
        self.context = context
        ERR_clear_error()
        let owner = Unmanaged.passUnretained(self).toOpaque()
        guard let pointer = mpio_tls_accepting(context.pointer, owner, &input, &output) else {
            throw .unavailable(TLSFailure.libraryWords(ERR_get_error()))
        }
        self.pointer = pointer
    }

    deinit { SSL_free(pointer) }

    static func owner(of connection: OpaquePointer) -> TLSServerConnection? {
        mpio_tls_owner(connection).map { Unmanaged<TLSServerConnection>.fromOpaque($0).takeUnretainedValue() }
    }

    func key(of name: UnsafeRawBufferPointer) -> UnsafeRawBufferPointer {
        let (key, isKnown) = context.keys.key(of: name)
        user = (String(decoding: name, as: UTF8.self), isKnown)
        return key
    }

    /// The user whose key the client has; once established.
    public var userName: String? { isEstablished ? user?.name : nil }
    /// "TLSv1.3"; once established.
    public var version: String? { isEstablished ? SSL_get_version(pointer).map { String(cString: $0) } : nil }

    // MARK: the peer's side

    /// Takes bytes of the peer.
    public func receive(_ bytes: UnsafeRawBufferPointer) throws(TLSFailure) {
        guard !bytes.isEmpty else { return }
        guard BIO_write(input, bytes.baseAddress, Int32(bytes.count)) == bytes.count else { throw fail(.unavailable("no memory")) }
    }

    /// What waits to be sent.
    public var outputByteCount: Int { BIO_ctrl_pending(output) }

    /// Moves what waits to be sent into `memory`, as far as it has room; how much that was.
    public func takeOutput(into memory: UnsafeMutableRawBufferPointer) -> Int {
        guard memory.count > 0 else { return 0 }
        return max(0, Int(BIO_read(output, memory.baseAddress, Int32(clamping: memory.count))))
    }

    // MARK: our side

    /// Goes on with the handshake as far as the bytes of the peer allow.
    public func handshake() throws(TLSFailure) {
        guard !isEstablished else { return }
        try check()
        ERR_clear_error()
        let result = SSL_do_handshake(pointer)
        if result == 1 {
            isEstablished = true
        } else {
            try deal(with: result)
        }
    }

    /// Plaintext into `memory`; how much, 0 where more bytes of the peer are needed, or it ``hasPeerFinished``.
    public func read(into memory: UnsafeMutableRawBufferPointer) throws(TLSFailure) -> Int {
        try check()
        guard isEstablished, memory.count > 0, !hasPeerFinished else { return 0 }
        ERR_clear_error()
        var count = 0
        let result = SSL_read_ex(pointer, memory.baseAddress, memory.count, &count)
        guard result == 1 else {
            try deal(with: result)
            return 0
        }
        return count
    }

    /// Makes records of plaintext, which ``takeOutput(into:)`` then has.
    public func write(_ bytes: UnsafeRawBufferPointer) throws(TLSFailure) {
        try check()
        precondition(isEstablished, "nothing is written before the handshake is over")
        guard !bytes.isEmpty else { return }
        ERR_clear_error()
        var count = 0
        let result = SSL_write_ex(pointer, bytes.baseAddress, bytes.count, &count)
        guard result == 1, count == bytes.count else {
            try deal(with: result)
            throw fail(.violation("a record could not be made"))
        }
    }

    /// Says that nothing more comes (close_notify).
    public func finish() {
        guard isEstablished, failure == nil else { return }
        ERR_clear_error()
        // 0: the peer has not said so yet, which nobody waits for.
        if SSL_shutdown(pointer) < 0 { failure = .violation("the connection could not be ended in order") }
    }

    // MARK: failures

    private func check() throws(TLSFailure) {
        if let failure { throw failure }
    }

    private func fail(_ reason: TLSFailure) -> TLSFailure {
        failure = reason
        return reason
    }

    /// A call that did not do what it should: returns where it only wants more bytes, or the peer is done.
    private func deal(with result: Int32) throws(TLSFailure) {
        switch SSL_get_error(pointer, result) {
        case SSL_ERROR_WANT_READ: return
        case SSL_ERROR_ZERO_RETURN: hasPeerFinished = true
        default: throw fail(reason(ERR_peek_error()))
        }
    }

    private func reason(_ code: UInt) -> TLSFailure {
        let words = TLSFailure.libraryWords(code)
        guard Int(ERR_GET_LIB(code)) == Int(ERR_LIB_SSL) else { return .violation(words) }
        switch ERR_GET_REASON(code) {
        case SSL_R_BINDER_DOES_NOT_VERIFY where !isEstablished,
            SSL_R_DECRYPTION_FAILED_OR_BAD_RECORD_MAC where !isEstablished && user != nil,
            SSL_R_DIGEST_CHECK_FAILED where !isEstablished && user != nil:
            guard let user else { return .violation(words) }
            return user.isKnown ? .wrongKey(user: user.name) : .unknownUser(user.name)
        case SSL_R_HTTP_REQUEST, SSL_R_HTTPS_PROXY_REQUEST, SSL_R_UNKNOWN_PROTOCOL: return .notTLS
        case SSL_R_WRONG_VERSION_NUMBER, SSL_R_BAD_RECORD_TYPE, SSL_R_PACKET_LENGTH_TOO_LONG, SSL_R_UNEXPECTED_MESSAGE:
            return isEstablished || user != nil ? .violation(words) : .notTLS
        case SSL_R_UNSUPPORTED_PROTOCOL, SSL_R_VERSION_TOO_LOW: return .versionTooOld
        case SSL_R_NO_SHARED_CIPHER, SSL_R_NO_SUITABLE_SIGNATURE_ALGORITHM, SSL_R_NO_SUITABLE_KEY_SHARE, SSL_R_NO_SHARED_GROUPS,
            SSL_R_NO_SHARED_SIGNATURE_ALGORITHMS, SSL_R_NO_CERTIFICATE_SET:
            return .nothingInCommon
        // The library numbers the peer's alerts from 1000 on.
        case 1000...1255: return .peerAlert(words)
        default: return .violation(words)
        }
    }
}
