internal import COpenSSL
import Glibc

/// Users and the keys that they share with this server, from a file as GnuTLS's `psktool` writes it: a line
/// `user:key` for each, the key in hexadecimal.
///
/// The keys lie in one piece of memory that is overwritten when it is given back; they are never printed.
/// **Threads.** Any: it does not change.
public final class PreSharedKeys: @unchecked Sendable {
    /// Of one key, in bytes. Shorter ones could be guessed.
    public static let keyByteCounts = 16...64
    /// Of a user's name, in bytes.
    public static let nameByteCounts = 1...128
    public static let maximumFileByteCount = 1 << 20

    /// First a key that nobody has, then those of the file.
    private let storage: UnsafeMutableRawBufferPointer
    private let places: [[UInt8]: Range<Int>]
    private static let decoyByteCount = 32

    /// How many users there are.
    public var count: Int { places.count }

    /// Reads a file that nobody but its owner, which is this user or root, may read.
    public convenience init(file path: String) throws(PreSharedKeyError) {
        let contents = try Self.read(path)
        defer { Self.cleanse(contents) }
        try self.init(parsing: UnsafeRawBufferPointer(contents), path: path)
    }

    /// - Parameter path: names the file in errors.
    init(parsing bytes: UnsafeRawBufferPointer, path: String) throws(PreSharedKeyError) {
        // Two digits make a byte: the keys take less room than the file.
        let storage = UnsafeMutableRawBufferPointer.allocate(byteCount: Self.decoyByteCount + bytes.count, alignment: 16)
        storage.initializeMemory(as: UInt8.self, repeating: 0)
        self.storage = storage
        do throws(PreSharedKeyError) {
            guard RAND_bytes(storage.baseAddress, Int32(Self.decoyByteCount)) == 1 else { throw .noRandomBytes }
            places = try Self.parse(bytes, into: storage, path: path)
        } catch {
            Self.cleanse(storage)
            throw error
        }
    }

    deinit { Self.cleanse(storage) }

    private static func cleanse(_ memory: UnsafeMutableRawBufferPointer) {
        OPENSSL_cleanse(memory.baseAddress, memory.count)
        memory.deallocate()
    }

    /// The key of a user; where there is no such user, one that nobody has: then the handshake fails as with a wrong
    /// key, and a stranger does not learn who is known. Valid as long as these keys are.
    func key(of name: UnsafeRawBufferPointer) -> (bytes: UnsafeRawBufferPointer, isKnown: Bool) {
        let place = places[Array(name)]
        return (UnsafeRawBufferPointer(rebasing: storage[place ?? 0..<Self.decoyByteCount]), place != nil)
    }

    // MARK: the file

    private static func read(_ path: String) throws(PreSharedKeyError) -> UnsafeMutableRawBufferPointer {
        // Not to wait for somebody to write into a pipe.
        let descriptor = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK)
        guard descriptor >= 0 else { throw .cannotRead(path: path, code: errno) }
        defer { close(descriptor) }
        var status = stat()
        guard fstat(descriptor, &status) == 0 else { throw .cannotRead(path: path, code: errno) }
        guard status.st_mode & S_IFMT == S_IFREG else { throw .notAFile(path: path) }
        guard status.st_mode & 0o077 == 0 else { throw .openToOthers(path: path, mode: status.st_mode & 0o777) }
        guard status.st_uid == geteuid() || status.st_uid == 0 else { throw .foreignOwner(path: path, user: status.st_uid) }
        guard status.st_size <= maximumFileByteCount else { throw .tooLarge(path: path) }
        let contents = UnsafeMutableRawBufferPointer.allocate(byteCount: max(1, Int(status.st_size)), alignment: 16)
        var count = 0
        while count < Int(status.st_size) {
            let part = Glibc.read(descriptor, contents.baseAddress! + count, Int(status.st_size) - count)
            if part < 0, errno == EINTR { continue }
            guard part > 0 else {
                // Read an error first: giving memory back may change it.
                let code = part < 0 ? errno : EIO
                cleanse(contents)
                throw .cannotRead(path: path, code: code)
            }
            count += part
        }
        guard count == contents.count else {
            cleanse(contents)
            throw .noKeys(path: path)
        }
        return contents
    }

    private static func parse(
        _ bytes: UnsafeRawBufferPointer, into storage: UnsafeMutableRawBufferPointer, path: String
    ) throws(PreSharedKeyError) -> [[UInt8]: Range<Int>] {
        var places: [[UInt8]: Range<Int>] = [:]
        var end = decoyByteCount
        var number = 0
        var rest = bytes[...]
        while !rest.isEmpty {
            number += 1
            let line = rest.prefix { $0 != 0x0A }
            rest = rest.dropFirst(line.count + 1)
            if line.isEmpty { continue }
            func mistake(_ mistake: PreSharedKeyError.Mistake) -> PreSharedKeyError { .line(path: path, number: number, mistake) }
            guard let colon = line.lastIndex(of: 0x3A) else { throw mistake(.noColon) }
            guard let name = Self.name(line[..<colon]) else { throw mistake(.nameIsNoHexadecimal) }
            guard nameByteCounts.contains(name.count), !name.contains(0) else { throw mistake(.nameLength) }
            let digits = line[line.index(after: colon)...]
            let start = end
            guard digits.count % 2 == 0 else { throw mistake(.keyIsNoHexadecimal) }
            guard keyByteCounts.contains(digits.count / 2) else { throw mistake(.keyLength) }
            for index in stride(from: digits.startIndex, to: digits.endIndex, by: 2) {
                guard let high = hexadecimal(digits[index]), let low = hexadecimal(digits[index + 1]) else {
                    throw mistake(.keyIsNoHexadecimal)
                }
                storage[end] = high << 4 | low
                end += 1
            }
            guard places.updateValue(start..<end, forKey: name) == nil else { throw mistake(.sameNameTwice) }
        }
        guard !places.isEmpty else { throw .noKeys(path: path) }
        return places
    }

    /// As it stands, or in hexadecimal after a `#`, which is how names with odd bytes are written.
    private static func name(_ text: Slice<UnsafeRawBufferPointer>) -> [UInt8]? {
        guard text.first == 0x23 else { return Array(text) }
        let digits = Array(text.dropFirst())
        guard digits.count % 2 == 0 else { return nil }
        var name: [UInt8] = []
        for index in stride(from: 0, to: digits.count, by: 2) {
            guard let high = hexadecimal(digits[index]), let low = hexadecimal(digits[index + 1]) else { return nil }
            name.append(high << 4 | low)
        }
        return name
    }

    private static func hexadecimal(_ character: UInt8) -> UInt8? {
        switch character {
        case 0x30...0x39: character - 0x30
        case 0x41...0x46: character - 0x37
        case 0x61...0x66: character - 0x57
        default: nil
        }
    }
}

/// Why a file of keys is not used; in words for the user, none of them from a key.
public enum PreSharedKeyError: Error, Hashable, Sendable, CustomStringConvertible {
    case cannotRead(path: String, code: Int32)
    /// A folder, a pipe.
    case notAFile(path: String)
    /// Others than its owner may read or change it.
    case openToOthers(path: String, mode: UInt32)
    case foreignOwner(path: String, user: UInt32)
    case tooLarge(path: String)
    /// Lines are counted from 1.
    case line(path: String, number: Int, Mistake)
    case noKeys(path: String)
    case noRandomBytes

    public enum Mistake: Hashable, Sendable {
        case noColon
        case nameIsNoHexadecimal
        case nameLength
        case keyIsNoHexadecimal
        case keyLength
        case sameNameTwice

        var words: String {
            switch self {
            case .noColon: "a user's name, a colon and a key in hexadecimal belong there"
            case .nameIsNoHexadecimal: "after a '#' the name is written in hexadecimal"
            case .nameLength: "a name has \(PreSharedKeys.nameByteCounts.lowerBound) to \(PreSharedKeys.nameByteCounts.upperBound) bytes"
            case .keyIsNoHexadecimal: "the key is no hexadecimal number of whole bytes"
            case .keyLength: "a key has \(PreSharedKeys.keyByteCounts.lowerBound) to \(PreSharedKeys.keyByteCounts.upperBound) bytes, two digits each"
            case .sameNameTwice: "the user has a key already"
            }
        }
    }

    public var description: String {
        switch self {
        case .cannotRead(let path, let code): "\(path): \(String(cString: strerror(code)))"
        case .notAFile(let path): "\(path) is no file"
        case .openToOthers(let path, let mode):
            "\(path): others can get at the keys (mode \(String(mode, radix: 8))); run: chmod 600 \(path)"
        case .foreignOwner(let path, let user): "\(path) belongs to another user (\(user)), who can read the keys"
        case .tooLarge(let path): "\(path) is larger than \(PreSharedKeys.maximumFileByteCount >> 20) MiB"
        case .line(let path, let number, let mistake): "\(path):\(number): \(mistake.words)"
        case .noKeys(let path): "\(path) has no key; run: psktool -u NAME -p \(path)"
        case .noRandomBytes: "OpenSSL has no random bytes"
        }
    }
}
