import Foundation

extension Configuration {
    /// Reads a policy file, and the secret files that it names.
    ///
    /// Throws ``ConfigurationFileError`` where the file can't be read, ``InvalidConfiguration`` with every mistake
    /// that is in it. Blocks for the time of reading.
    public init(contentsOf path: String) throws {
        try self.init(bytes: try Self.readFile(path), of: path)
    }

    /// The same from a file's bytes, which ``readFile(_:)`` gave.
    init(bytes: [UInt8], of path: String) throws(InvalidConfiguration) {
        let folder = URL(fileURLWithPath: path).deletingLastPathComponent().path
        try self.init(bytes: bytes, file: path, folder: folder)
    }

    /// Reads a policy from text. Relative names of files in it count from `folder`; errors name it `file`.
    public init(yaml: String, file: String = "<policy>", folder: String = ".") throws(InvalidConfiguration) {
        try self.init(bytes: Array(yaml.utf8), file: file, folder: folder)
    }

    private init(bytes: [UInt8], file: String, folder: String) throws(InvalidConfiguration) {
        guard let text = String(validating: bytes, as: UTF8.self) else {
            let good = String(decoding: bytes.prefix(Self.validPrefixCount(bytes)), as: UTF8.self)
            let last = good.split(separator: "\n", omittingEmptySubsequences: false).last ?? ""
            throw InvalidConfiguration(errors: [
                ConfigurationError(
                    file: file, line: good.unicodeScalars.count { $0 == "\n" } + 1, column: last.unicodeScalars.count + 1,
                    keyPath: "", message: "not text in UTF-8", expected: "a YAML file")
            ])
        }
        var document = PolicyDocument(file: file)
        let root = document.compose(text)
        let collector = ConfigurationErrorCollector(file: file, errors: document.errors)
        var reader = ConfigurationReader(collector: collector, folder: folder)
        if let root {
            reader.read(root)
        } else if document.errors.isEmpty {
            collector.report(nil, "", "the file is empty", expected: ConfigurationReader.topKeysWords)
        }
        guard collector.errors.isEmpty else { throw InvalidConfiguration(errors: collector.sortedErrors) }
        self = reader.configuration
        self.file = file
    }

    private static func validPrefixCount(_ bytes: [UInt8]) -> Int {
        var iterator = bytes.makeIterator()
        var decoder = UTF8()
        var count = 0
        while case .scalarValue(let scalar) = decoder.decode(&iterator) { count += UTF8.width(scalar) }
        return count
    }

    /// The bytes of a regular file that is no larger than a policy file may be.
    static func readFile(_ path: String) throws(ConfigurationFileError) -> [UInt8] {
        // Without O_NONBLOCK a FIFO in the file's place would hang here.
        let descriptor = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY)
        guard descriptor >= 0 else {
            throw errno == ENOENT ? .notFound(tried: [path]) : .unreadable(path: path, code: errno)
        }
        defer { close(descriptor) }
        var status = stat()
        guard fstat(descriptor, &status) == 0 else { throw .unreadable(path: path, code: errno) }
        guard status.st_mode & S_IFMT == S_IFREG else { throw .notARegularFile(path: path) }
        guard status.st_size <= maximumFileByteCount else { throw .tooLarge(path: path) }
        var bytes = [UInt8](repeating: 0, count: maximumFileByteCount + 1)
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
        guard count <= maximumFileByteCount else { throw .tooLarge(path: path) }
        bytes.removeLast(bytes.count - count)
        return bytes
    }

    /// The policy file to use: `explicit` where given, else `$MPIO_CONFIG`, `./mpio.yaml`,
    /// `~/.config/mpio/mpio.yaml` (or `$XDG_CONFIG_HOME/mpio/mpio.yaml`), `/etc/mpio/mpio.yaml`, the first that exists.
    ///
    /// `environment` is the process's own where nil. A file that was named and does not exist is an error, never a reason to look further.
    public static func search(
        explicit: String? = nil, environment: [String: String]? = nil,
        systemFile: String = "/etc/mpio/mpio.yaml"
    ) throws(ConfigurationFileError) -> String {
        if let explicit {
            guard access(explicit, F_OK) == 0 else { throw .notFound(tried: [explicit]) }
            return explicit
        }
        let environment = environment ?? ProcessInfo.processInfo.environment
        if let named = environment["MPIO_CONFIG"], !named.isEmpty {
            guard access(named, F_OK) == 0 else { throw .notFound(tried: ["\(named) ($MPIO_CONFIG)"]) }
            return named
        }
        var places = ["mpio.yaml"]
        if let folder = environment["XDG_CONFIG_HOME"], folder.hasPrefix("/") {
            places.append(folder + "/mpio/mpio.yaml")
        } else if let home = environment["HOME"], !home.isEmpty {
            places.append(home + "/.config/mpio/mpio.yaml")
        }
        places.append(systemFile)
        for place in places where access(place, F_OK) == 0 { return place }
        throw .notFound(tried: places.map { $0 == "mpio.yaml" ? "./mpio.yaml" : $0 })
    }
}
