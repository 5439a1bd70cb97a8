/// One mistake in a policy file: where it is, what is wrong, what was expected.
public struct ConfigurationError: Error, Hashable, Sendable, CustomStringConvertible {
    /// The file as the user named it, or `<policy>` for text that came from elsewhere.
    public var file: String
    /// 1-based.
    public var line: Int
    /// 1-based, counted in Unicode scalars.
    public var column: Int
    /// The way to the value, e.g. `luns[0].paths[1].weight`; empty for the whole file.
    public var keyPath: String
    /// What is wrong, in words.
    public var message: String
    /// What would have been right, where that can be said.
    public var expected: String?

    /// A mistake at a place of a file.
    public init(
        file: String, line: Int, column: Int, keyPath: String, message: String, expected: String? = nil
    ) {
        self.file = file
        self.line = line
        self.column = column
        self.keyPath = keyPath
        self.message = message
        self.expected = expected
    }

    /// `FILE:LINE:COLUMN: KEY: MESSAGE (expected …)`, the form that editors jump to.
    public var description: String {
        var text = "\(file):\(line):\(column): "
        if !keyPath.isEmpty { text += keyPath + ": " }
        text += message
        if let expected { text += " (expected \(expected))" }
        return text
    }
}

/// A policy file that can't be used, with all its mistakes in the order of the file.
public struct InvalidConfiguration: Error, Hashable, Sendable, CustomStringConvertible {
    /// At least one; at most 100.
    public var errors: [ConfigurationError]

    static var maximumErrorCount: Int { 100 }

    /// All mistakes of one file; at least one.
    public init(errors: [ConfigurationError]) {
        precondition(!errors.isEmpty, "an invalid configuration has an error")
        self.errors = errors
    }

    public var description: String { errors.map(\.description).joined(separator: "\n") }
}

/// No policy file was found, or the one that was named can't be read.
public enum ConfigurationFileError: Error, Hashable, Sendable, CustomStringConvertible {
    /// None of the places, in the order in which they were tried, has one.
    case notFound(tried: [String])
    /// It can't be read; `code` is an `errno`.
    case unreadable(path: String, code: Int32)
    /// A folder, a pipe or something else that is no file.
    case notARegularFile(path: String)
    /// Over ``Configuration/maximumFileByteCount``.
    case tooLarge(path: String)

    public var description: String {
        switch self {
        case .notFound(let tried) where tried.count == 1:
            "there is no policy file \(tried[0]). Write one by: mpio discover PORTAL --write-config \(tried[0].prefix { $0 != " " })"
        case .notFound(let tried):
            "no policy file found; looked for " + tried.joined(separator: ", ")
                + ". Write one by: mpio discover PORTAL --write-config mpio.yaml, or name one by --config"
        case .unreadable(let path, let code):
            "\(path): \(errorText(code))"
        case .notARegularFile(let path):
            "\(path): not a regular file"
        case .tooLarge(let path):
            "\(path): larger than \(Configuration.maximumFileByteCount >> 20) MiB, which no policy file is"
        }
    }
}
