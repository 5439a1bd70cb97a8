import Foundation

/// The folder for what lives only as long as processes do: leases and control sockets.
public enum RuntimeDirectory {
    /// `$XDG_RUNTIME_DIR/mpio` where that is set, `/run/mpio` for root, `/tmp/mpio-UID` for others.
    public static func defaultPath(environment: [String: String]? = nil, userID: UInt32? = nil) -> String {
        let userID = userID ?? geteuid()
        let environment = environment ?? ProcessInfo.processInfo.environment
        if let folder = environment["XDG_RUNTIME_DIR"], folder.hasPrefix("/") { return folder + "/mpio" }
        return userID == 0 ? "/run/mpio" : "/tmp/mpio-\(userID)"
    }

    /// Every folder in which this user may find holders, the own one first.
    public static func searchPaths(environment: [String: String]? = nil) -> [String] {
        var paths = [defaultPath(environment: environment)]
        for other in ["/run/mpio", "/tmp/mpio-\(geteuid())"] where !paths.contains(other) { paths.append(other) }
        return paths
    }

    /// Makes the folder where it is missing, mode 0700, and checks that nobody else can put things into it: in `/tmp`
    /// anybody could have made it first.
    public static func prepare(_ path: String) throws(RuntimeDirectoryError) {
        if mkdir(path, 0o700) != 0, errno != EEXIST { throw .unusable(path: path, code: errno) }
        try check(path)
    }

    /// The folder's one name, without links and detours. It has to exist.
    static func canonical(_ path: String) throws(RuntimeDirectoryError) -> String {
        guard let found = realpath(path, nil) else { throw .unusable(path: path, code: errno) }
        defer { free(found) }
        return String(cString: found)
    }

    /// Throws unless it is a folder, no link, of this user or root, that only its owner can write.
    public static func check(_ path: String) throws(RuntimeDirectoryError) {
        var status = stat()
        guard lstat(path, &status) == 0 else { throw .unusable(path: path, code: errno) }
        guard status.st_mode & S_IFMT == S_IFDIR else { throw .notADirectory(path: path) }
        guard status.st_uid == geteuid() || status.st_uid == 0 else { throw .foreignOwner(path: path, owner: status.st_uid) }
        guard status.st_mode & 0o022 == 0 else { throw .writableByOthers(path: path) }
    }
}

/// Why a folder can't be the runtime folder.
public enum RuntimeDirectoryError: Error, Hashable, Sendable, CustomStringConvertible {
    /// It can't be made or looked at; `code` is an `errno`.
    case unusable(path: String, code: Int32)
    /// Something else has its name; a link to a folder counts as that.
    case notADirectory(path: String)
    /// It belongs to another user, who is not root.
    case foreignOwner(path: String, owner: UInt32)
    /// Others could put files there.
    case writableByOthers(path: String)

    public var description: String {
        switch self {
        case .unusable(let path, let code): "the runtime folder \(path): \(errorText(code)); $XDG_RUNTIME_DIR names another one"
        case .notADirectory(let path): "\(path) is not a folder (a link is refused as well)"
        case .foreignOwner(let path, let owner): "the runtime folder \(path) belongs to another user (uid \(owner))"
        case .writableByOthers(let path): "others can write to the runtime folder \(path); run: chmod 700 \(shellQuoted(path))"
        }
    }
}
