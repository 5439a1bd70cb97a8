import CAio
import ISCSI

/// Digests and randomness of the platform's libcrypto, for CHAP.
struct SystemCryptography: CryptographicServices {
    func randomBytes(count: Int) -> [UInt8] {
        var bytes = [UInt8](repeating: 0, count: count)
        let status = bytes.withUnsafeMutableBytes { mpio_random($0.baseAddress, $0.count) }
        // A challenge that is not random would be worse than none.
        precondition(status == 0, "the system gives no random bytes")
        return bytes
    }

    func digest(_ algorithm: CHAPAlgorithm, of bytes: [UInt8]) -> [UInt8]? {
        let name =
            switch algorithm {
            case .md5: "MD5"
            case .sha1: "SHA1"
            case .sha256: "SHA256"
            case .sha3_256: "SHA3-256"
            }
        var digest = [UInt8](repeating: 0, count: 64)
        var count: UInt32 = 0
        let status = bytes.withUnsafeBytes { mpio_digest(name, $0.baseAddress, $0.count, &digest, &count) }
        return status == 0 ? Array(digest.prefix(Int(count))) : nil
    }
}
