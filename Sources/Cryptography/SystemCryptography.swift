import CAio
public import ISCSI

/// What the pure protocol code is handed for CHAP: digests by OpenSSL, random bytes by the kernel.
public struct SystemCryptography: CryptographicServices {
    public init() {}

    public func randomBytes(count: Int) -> [UInt8] {
        var bytes = [UInt8](repeating: 0, count: count)
        let result = bytes.withUnsafeMutableBytes { mpio_random($0.baseAddress, $0.count) }
        // A challenge that is not random would be an open door.
        precondition(result == 0, "the kernel gives no random bytes: error \(-result)")
        return bytes
    }

    public func digest(_ algorithm: CHAPAlgorithm, of bytes: [UInt8]) -> [UInt8]? {
        let name: String
        switch algorithm {
        case .md5: name = "MD5"
        case .sha1: name = "SHA1"
        case .sha256: name = "SHA256"
        case .sha3_256: name = "SHA3-256"
        }
        var output = [UInt8](repeating: 0, count: 64)
        var count: UInt32 = 0
        let result = bytes.withUnsafeBytes { mpio_digest(name, $0.baseAddress, $0.count, &output, &count) }
        return result == 0 ? Array(output.prefix(Int(count))) : nil
    }
}

/// CRC32C by instruction where the processor has one.
public let systemCRC32C: CRC32CFunction = { seed, bytes, count in mpio_crc32c(seed, bytes, count) }
