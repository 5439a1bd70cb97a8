import Glibc

/// A CHAP secret. It is never printed: every description of it is `<secret>`.
public struct Secret: Sendable, CustomStringConvertible, CustomDebugStringConvertible, CustomReflectable {
    /// The secret itself.
    public let bytes: [UInt8]

    /// RFC 7143 section 9.2.1 asks for 96 bits at least where IPsec does not protect the connection.
    public static var minimumByteCount: Int { 12 }
    /// Longer ones do not fit into a login.
    public static var maximumByteCount: Int { 255 }

    /// Throws where the length is out of bounds or the bytes hold a NUL or a line break.
    public init(bytes: [UInt8]) throws(SecretProblem) {
        guard bytes.count >= Self.minimumByteCount else { throw .tooShort(byteCount: bytes.count) }
        guard bytes.count <= Self.maximumByteCount else { throw .tooLong }
        guard !bytes.contains(where: { $0 == 0 || $0 == 0x0A || $0 == 0x0D }) else { throw .notOneLine }
        self.bytes = bytes
    }

    /// Reads a secret file: a regular file that nobody but its owner can use, one line. The mode is asked of the
    /// file that was opened, not of the name, so that the two can't differ.
    public init(contentsOfFile path: String) throws(SecretProblem) {
        let descriptor = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY)
        guard descriptor >= 0 else { throw .unreadable(path: path, code: errno) }
        defer { close(descriptor) }
        var status = stat()
        guard fstat(descriptor, &status) == 0 else { throw .unreadable(path: path, code: errno) }
        guard status.st_mode & S_IFMT == S_IFREG else { throw .notARegularFile(path: path) }
        guard status.st_mode & 0o077 == 0 else { throw .readableByOthers(path: path, mode: status.st_mode & 0o777) }
        guard status.st_uid == geteuid() || status.st_uid == 0 else { throw .foreignOwner(path: path, owner: status.st_uid) }
        var bytes = [UInt8](repeating: 0, count: Self.maximumByteCount + 3)
        var count = 0
        while count < bytes.count {
            let received = bytes.withUnsafeMutableBytes { read(descriptor, $0.baseAddress! + count, $0.count - count) }
            if received == 0 { break }
            if received < 0 {
                if errno == EINTR { continue }
                throw .unreadable(path: path, code: errno)
            }
            count += received
        }
        bytes.removeLast(bytes.count - count)
        if bytes.last == 0x0A { bytes.removeLast() }
        if bytes.last == 0x0D { bytes.removeLast() }
        try self.init(bytes: bytes)
    }

    public var description: String { "<secret>" }
    public var debugDescription: String { "<secret>" }
    public var customMirror: Mirror { Mirror(self, children: [:]) }

    /// Whether both are the same secret. Not `Equatable`: comparing secrets is never incidental.
    func isSame(as other: Secret) -> Bool { bytes == other.bytes }
}

/// Why a secret is refused.
public enum SecretProblem: Error, Hashable, Sendable, CustomStringConvertible {
    /// The file can't be read; `code` is an `errno`.
    case unreadable(path: String, code: Int32)
    /// A folder, a pipe or something else that is no file.
    case notARegularFile(path: String)
    /// Its mode lets others than its owner read it.
    case readableByOthers(path: String, mode: UInt32)
    /// It belongs to another user, who is not root.
    case foreignOwner(path: String, owner: UInt32)
    /// Shorter than ``Secret/minimumByteCount``.
    case tooShort(byteCount: Int)
    /// Longer than ``Secret/maximumByteCount``.
    case tooLong
    /// It holds a line break, or another byte that no text has.
    case notOneLine

    public var description: String {
        switch self {
        case .unreadable(let path, let code): "the secret file \(path) can't be read: \(errorText(code))"
        case .notARegularFile(let path): "the secret file \(path) is not a regular file"
        case .readableByOthers(let path, let mode):
            "the secret file \(path) is open to others (mode 0\(String(mode, radix: 8))); run: chmod 600 \(shellQuoted(path))"
        case .foreignOwner(let path, let owner): "the secret file \(path) belongs to another user (uid \(owner))"
        case .tooShort(let count): "the secret has \(count) bytes; CHAP needs at least \(Secret.minimumByteCount)"
        case .tooLong: "the secret has more than \(Secret.maximumByteCount) bytes"
        case .notOneLine: "the secret is not one line of text"
        }
    }
}

/// `text` as one word of a POSIX shell.
func shellQuoted(_ text: String) -> String {
    let plain = text.utf8.allSatisfy { byte in
        switch byte {
        case UInt8(ascii: "a")...UInt8(ascii: "z"), UInt8(ascii: "A")...UInt8(ascii: "Z"), UInt8(ascii: "0")...UInt8(ascii: "9"),
            UInt8(ascii: "/"), UInt8(ascii: "."), UInt8(ascii: "-"), UInt8(ascii: "_"):
            true
        default: false
        }
    }
    return plain && !text.isEmpty ? text : "'" + text.replacing("'", with: "'\\''") + "'"
}
