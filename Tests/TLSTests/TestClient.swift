import COpenSSL
import TLS

/// A client by OpenSSL, in this process, without a socket.
final class TestClient {
    private let context: OpaquePointer
    private(set) var connection: OpaquePointer!
    private var input: OpaquePointer?
    private var output: OpaquePointer?
    private let user: String
    private let key: [UInt8]
    private(set) var isEstablished = false
    /// The library's last word.
    private(set) var error = ""

    /// - Parameter version: `TLS1_2_VERSION`, say; no other is offered.
    init(user: String, key: [UInt8], version: Int32, ciphers: String = "PSK:@SECLEVEL=0") {
        self.user = user
        self.key = key
        context = SSL_CTX_new(TLS_client_method())
        SSL_CTX_ctrl(context, SSL_CTRL_SET_MIN_PROTO_VERSION, Int(version), nil)
        SSL_CTX_ctrl(context, SSL_CTRL_SET_MAX_PROTO_VERSION, Int(version), nil)
        precondition(SSL_CTX_set_cipher_list(context, ciphers) == 1)
        SSL_CTX_set_psk_client_callback(context) { connection, _, identity, identityRoom, key, keyRoom in
            let client = Unmanaged<TestClient>.fromOpaque(mpio_tls_owner(connection!)).takeUnretainedValue()
            precondition(client.user.utf8.count < identityRoom && client.key.count <= keyRoom)
            for (index, byte) in (Array(client.user.utf8) + [0]).enumerated() { identity![index] = CChar(bitPattern: byte) }
            for (index, byte) in client.key.enumerated() { key![index] = byte }
            return UInt32(client.key.count)
        }
        connection = mpio_tls_accepting(context, Unmanaged.passUnretained(self).toOpaque(), &input, &output)
        SSL_set_connect_state(connection)
    }

    deinit {
        SSL_free(connection)
        SSL_CTX_free(context)
    }

    func receive(_ bytes: [UInt8]) {
        guard !bytes.isEmpty else { return }
        precondition(BIO_write(input, bytes, Int32(bytes.count)) == bytes.count)
    }

    func takeOutput() -> [UInt8] {
        var bytes = [UInt8](repeating: 0, count: BIO_ctrl_pending(output))
        if !bytes.isEmpty { precondition(BIO_read(output, &bytes, Int32(bytes.count)) == bytes.count) }
        return bytes
    }

    /// False where it has failed.
    @discardableResult
    func handshake() -> Bool {
        guard !isEstablished else { return true }
        ERR_clear_error()
        let result = SSL_do_handshake(connection)
        isEstablished = result == 1
        return isEstablished || noteError(result)
    }

    private func noteError(_ result: Int32) -> Bool {
        guard SSL_get_error(connection, result) != SSL_ERROR_WANT_READ else { return true }
        error = ERR_reason_error_string(ERR_get_error()).map { String(cString: $0) } ?? "?"
        return false
    }

    func write(_ bytes: [UInt8]) {
        var count = 0
        precondition(SSL_write_ex(connection, bytes, bytes.count, &count) == 1 && count == bytes.count)
    }

    func read() -> [UInt8] {
        var all: [UInt8] = []
        var bytes = [UInt8](repeating: 0, count: 65_536)
        while true {
            var count = 0
            ERR_clear_error()
            let result = SSL_read_ex(connection, &bytes, bytes.count, &count)
            guard result == 1 else {
                _ = noteError(result)
                return all
            }
            all += bytes[..<count]
        }
    }

    func updateKey() {
        precondition(SSL_key_update(connection, SSL_KEY_UPDATE_REQUESTED) == 1 && SSL_do_handshake(connection) == 1)
    }

    func finish() { SSL_shutdown(connection) }
}

/// A client and a server whose bytes go back and forth.
struct Pair {
    let client: TestClient
    let server: TLSServerConnection
    /// What the server takes at once.
    var pieceByteCount = 1 << 14

    /// Hands over what the client has to say; what it says, decrypted.
    @discardableResult
    func toServer() throws -> [UInt8] { try toServer(client.takeOutput()) }

    @discardableResult
    func toServer(_ bytes: [UInt8]) throws -> [UInt8] {
        var all: [UInt8] = []
        var rest = bytes[...]
        var buffer = [UInt8](repeating: 0, count: 20_000)
        while !rest.isEmpty {
            let piece = Array(rest.prefix(pieceByteCount))
            rest = rest.dropFirst(piece.count)
            try piece.withUnsafeBytes { try server.receive($0) }
            try server.handshake()
            while server.isEstablished {
                let count = try buffer.withUnsafeMutableBytes { try server.read(into: $0) }
                guard count > 0 else { break }
                all += buffer[..<count]
            }
        }
        return all
    }

    func serverOutput() -> [UInt8] {
        var bytes = [UInt8](repeating: 0, count: server.outputByteCount)
        let count = bytes.withUnsafeMutableBytes { server.takeOutput(into: $0) }
        precondition(count == bytes.count && server.outputByteCount == 0)
        return bytes
    }

    func toClient() { client.receive(serverOutput()) }

    /// As far as it gets.
    func handshake() throws {
        for _ in 0..<10 where !client.isEstablished || !server.isEstablished {
            guard client.handshake() else { return }
            try toServer()
            toClient()
        }
    }
}
