internal import COpenSSL

/// What the connections of a server have in common: versions, suites, keys. TLS 1.2 and 1.3 by pre-shared key.
///
/// **Threads.** Any.
public final class TLSServerContext: @unchecked Sendable {
    let pointer: OpaquePointer
    let keys: PreSharedKeys

    public init(keys: PreSharedKeys) throws(TLSFailure) {
        ERR_clear_error()
        guard let pointer = mpio_tls_server_context() else { throw .unavailable(TLSFailure.libraryWords(ERR_get_error())) }
        self.pointer = pointer
        self.keys = keys
        SSL_CTX_set_psk_server_callback(pointer) { connection, identity, room, roomByteCount in
            guard let connection, let identity, let room, let owner = TLSServerConnection.owner(of: connection) else { return 0 }
            let name = UnsafeRawBufferPointer(start: identity, count: strnlen(identity, Int(PSK_MAX_IDENTITY_LEN)))
            let key = owner.key(of: name)
            guard key.count <= Int(roomByteCount), let base = key.baseAddress else { return 0 }
            UnsafeMutableRawPointer(room).copyMemory(from: base, byteCount: key.count)
            return UInt32(key.count)
        }
        SSL_CTX_set_psk_find_session_callback(pointer) { connection, identity, count, session in
            guard let connection, let session, let owner = TLSServerConnection.owner(of: connection) else { return 0 }
            session.pointee = TLSServerContext.session(owner.key(of: UnsafeRawBufferPointer(start: identity, count: count)), connection)
            return session.pointee == nil ? 0 : 1
        }
    }

    deinit { SSL_CTX_free(pointer) }

    /// What TLS 1.3 wants to see of a key: a session that might have been. The library frees it.
    private static func session(_ key: UnsafeRawBufferPointer, _ connection: OpaquePointer) -> OpaquePointer? {
        // TLS_AES_128_GCM_SHA256: of a key without a hash of its own it is SHA-256 (RFC 8446 section 4.2.11).
        let suite: [UInt8] = [0x13, 0x01]
        guard let cipher = SSL_CIPHER_find(connection, suite), let session = SSL_SESSION_new() else { return nil }
        guard SSL_SESSION_set1_master_key(session, key.bindMemory(to: UInt8.self).baseAddress, key.count) == 1,
            SSL_SESSION_set_cipher(session, cipher) == 1, SSL_SESSION_set_protocol_version(session, TLS1_3_VERSION) == 1
        else {
            SSL_SESSION_free(session)
            return nil
        }
        return session
    }
}

/// Why TLS did not come about, or ended; in words for the log of the server.
public enum TLSFailure: Error, Hashable, Sendable, CustomStringConvertible {
    /// OpenSSL cannot do what is needed here.
    case unavailable(String)
    /// The client says that it is somebody whom the keys do not have.
    case unknownUser(String)
    /// The client's key is not this user's.
    case wrongKey(user: String)
    /// What came is not TLS at all.
    case notTLS
    case versionTooOld
    /// The client offers no suite, or no key, that is taken here.
    case nothingInCommon
    /// What the client said when it gave up.
    case peerAlert(String)
    /// Against the protocol, or changed on the way; in OpenSSL's words.
    case violation(String)

    public var description: String {
        switch self {
        case .unavailable(let words): "OpenSSL can't do TLS with pre-shared keys here: \(words)"
        case .unknownUser(let name): "there is no user '\(name)' in the file of keys"
        case .wrongKey(let name): "the client has another key than '\(name)' has in the file of keys"
        case .notTLS: "the client does not speak TLS"
        case .versionTooOld: "the client's TLS is older than 1.2"
        case .nothingInCommon: "the client offers no pre-shared key, or no cipher suite that is taken here"
        case .peerAlert(let words): "the client gave up: \(words)"
        case .violation(let words): words
        }
    }

    static func libraryWords(_ code: UInt) -> String {
        guard code != 0, let reason = ERR_reason_error_string(code) else { return "no reason given" }
        return String(cString: reason)
    }
}
