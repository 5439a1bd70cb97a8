import Foundation
import Multipath
import Yams

/// Writes a change into a policy file and leaves the rest of it, comments and order, as it is.
///
/// The new text is read again before it is used: unless it says exactly what the old one said, with the change, nothing is
/// written. What is removed takes the comments in its own lines along.
public struct PolicyFileEditor: Sendable {
    /// The file itself, where it was named by a link.
    public let file: String
    /// The new text.
    public let text: String
    private let original: [UInt8]

    /// Reads the file and makes the change in memory. Throws ``PolicyFileRefusal``, ``ControlFailure`` for a change that
    /// is wrong, ``InvalidConfiguration`` for a file that has mistakes already, or what reading it gives.
    public init(_ file: String, applying edit: ConfigurationEdit) throws {
        self.file = URL(fileURLWithPath: file).resolvingSymlinksInPath().path
        original = try Configuration.readFile(self.file)
        let old = try Configuration(bytes: original, of: self.file)
        let folder = URL(fileURLWithPath: self.file).deletingLastPathComponent().path
        text = try Self.edited(String(decoding: original, as: UTF8.self), old, edit, folder: folder)
    }

    /// The text with a change made.
    static func edited(_ text: String, _ old: Configuration, _ edit: ConfigurationEdit, folder: String) throws -> String {
        var expected = old
        try expected.apply(edit)
        var document = PolicyDocument(file: "")
        guard let root = document.compose(text)?.mapping, let list = root["luns"]?.sequence,
            let index = old.luns.firstIndex(where: { $0.name == edit.lun }), list.indices.contains(index),
            let lun = list[index].mapping
        else { throw PolicyFileRefusal("the file is not laid out as a policy file") }
        var writer = PolicyEditWriter(text: PolicyText(text), root: root, lun: lun, old: old, new: expected, index: index)
        try writer.write(edit)
        let new = try writer.text.edited()
        let read: Configuration
        do {
            read = try Configuration(yaml: new, folder: folder)
        } catch {
            throw PolicyFileRefusal("the change can't be written into this file's layout: \(error.errors[0])")
        }
        let wrong = expected.differences(to: read)
        guard wrong.isEmpty, read.luns.map(\.name) == old.luns.map(\.name) else {
            throw PolicyFileRefusal("the change can't be written into this file's layout without another one: \(wrong.first.map(\.description) ?? "order")")
        }
        return new
    }

    /// Whether the file would change at all.
    public var isChange: Bool { Array(text.utf8) != original }

    /// Puts the new text in the old one's place, in one step, with its mode and owner. Throws where the file was changed
    /// meanwhile, or can't be written.
    public func save() throws {
        guard isChange else { return }
        var status = stat()
        guard stat(file, &status) == 0 else { throw systemFailure("stat") }
        let (descriptor, temporary) = try makeTemporary()
        var isMoved = false
        defer {
            close(descriptor)
            if !isMoved { unlink(temporary) }
        }
        let bytes = Array(text.utf8)
        var written = 0
        while written < bytes.count {
            let count = bytes.withUnsafeBytes { write(descriptor, $0.baseAddress! + written, $0.count - written) }
            if count < 0 && errno == EINTR { continue }
            guard count > 0 else { throw systemFailure("write") }
            written += count
        }
        if status.st_uid != geteuid() || status.st_gid != getegid() {
            guard fchown(descriptor, status.st_uid, status.st_gid) == 0 else { throw systemFailure("chown") }
        }
        guard fchmod(descriptor, status.st_mode & 0o7777) == 0, fsync(descriptor) == 0 else { throw systemFailure("fsync") }
        guard let now = FileManager.default.contents(atPath: file), Array(now) == original else {
            throw PolicyFileRefusal("\(file) was changed meanwhile")
        }
        guard rename(temporary, file) == 0 else { throw systemFailure("rename") }
        isMoved = true
        let folder = open(URL(fileURLWithPath: file).deletingLastPathComponent().path, O_RDONLY | O_DIRECTORY | O_CLOEXEC)
        if folder >= 0 {
            fsync(folder)
            close(folder)
        }
    }

    /// A new file beside the old one. Its name is no other's: a process that was killed leaves one behind, and its number comes again.
    private func makeTemporary() throws -> (descriptor: Int32, path: String) {
        for _ in 0..<16 {
            let path = "\(file).\(String(UInt32.random(in: 0 ... .max), radix: 16)).new"
            let descriptor = open(path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, 0o600)
            if descriptor >= 0 { return (descriptor, path) }
            guard errno == EEXIST else { break }
        }
        throw systemFailure("open")
    }

    private func systemFailure(_ operation: String) -> PolicyFileRefusal {
        PolicyFileRefusal("\(file): \(operation): \(errorText(errno))")
    }
}

/// Turns a change into changes of text.
private struct PolicyEditWriter {
    var text: PolicyText
    let root: Node.Mapping
    /// The LUN's mapping in the file, and its place in `old` and `new`.
    let lun: Node.Mapping
    let old: Configuration
    let new: Configuration
    let index: Int

    private static let identification = ["policy", "identity", "name"]

    mutating func write(_ edit: ConfigurationEdit) throws {
        switch edit {
        case .policy(_, let policy, let options): try writePolicy(policy, options)
        case .setPath(_, let path, let role, let weight): try writePath(path, role, weight)
        case .removePath(_, let path): try removePath(path)
        case .addPath: try addPath()
        }
    }

    // MARK: Policy

    private mutating func writePolicy(_ policy: String?, _ options: [String: String]) throws {
        let settings = new.luns[index].settings.policy
        if policy != nil, lun["policy"].flatMap({ $0.string }).flatMap({ PolicyKind(name: $0) }) != settings.kind {
            try text.set("policy", settings.kind.rawValue, in: lun, after: ["identity", "name"])
        }
        for option in PolicyOption.allCases {
            if options[option.rawValue] != nil {
                try text.set(option.rawValue, settings.options.text(of: option), in: lun, after: Self.identification)
            } else if !settings.kind.options.contains(option) {
                try text.remove(option.rawValue, from: lun)
            }
        }
    }

    // MARK: Paths

    private var isListed: Bool { !old.luns[index].paths.isEmpty }
    private var list: Node.Sequence? { lun["paths"]?.sequence }

    private func place(of path: String) -> Int? { old.luns[index].paths.firstIndex { $0.settings.name == path } }

    private mutating func writePath(_ path: String, _ role: PathRole?, _ weight: UInt16?) throws {
        guard isListed, let list, let place = place(of: path) else { return try listPaths() }
        guard let entry = list[place].mapping else { throw PolicyFileRefusal("a path that is no mapping") }
        let keys = ["weight", "role", "lun", "from", "portal", "device"]
        if let role { try text.set("role", role.rawValue, in: entry, after: keys) }
        if let weight { try text.set("weight", "\(weight)", in: entry, after: keys) }
    }

    private mutating func removePath(_ path: String) throws {
        guard isListed, let list, let place = place(of: path) else { return try listPaths() }
        try text.removeItem(place, from: list)
    }

    private mutating func addPath() throws {
        try addPortals()
        let paths = new.luns[index].paths
        guard let added = paths.last else { return }
        guard isListed, let list else { return try listPaths() }
        try text.append(entry(added), to: list)
    }

    /// The LUN had no list of paths and needs one.
    private mutating func listPaths() throws {
        let entries = new.luns[index].paths.map { entry($0) }
        try text.insert(
            "paths: [\(entries.joined(separator: ", "))]", lines: ["paths:"] + entries.map { "  - " + $0 }, into: lun,
            after: Self.identification)
    }

    /// Portals that targets get with the path.
    private mutating func addPortals() throws {
        for (number, target) in new.targets.enumerated() where target.portals.count > old.targets[number].portals.count {
            guard let targets = root["targets"]?.sequence, targets.indices.contains(number), let node = targets[number].mapping,
                let portals = node["portals"]?.sequence
            else { throw PolicyFileRefusal("the file is not laid out as a policy file") }
            for portal in target.portals[old.targets[number].portals.count...] {
                let source = portal.source.map { ", from: \(quoted("\($0)"))" }
                let address = quoted("\(portal.address)")
                try text.append(source.map { "{address: \(address)\($0)}" } ?? address, to: portals)
            }
        }
    }

    private func quoted(_ text: String) -> String {
        "\"" + text.replacing("\\", with: "\\\\").replacing("\"", with: "\\\"") + "\""
    }

    /// A path as one item of the list, with what is needed to say which session is meant.
    private func entry(_ path: PathConfiguration) -> String {
        var parts: [String] = []
        switch path.transport {
        case .device(let file): parts.append("device: \(quoted(file))")
        case .portal(let target, let portal, let number):
            let session = new.targets[target].portals[portal]
            parts.append("portal: \(quoted("\(session.address)"))")
            let same = new.targets.indices.flatMap { index in
                new.targets[index].portals.filter { $0.address == session.address }.map { (index, $0) }
            }
            if same.count(where: { $0.0 == target }) > 1, let source = session.source { parts.append("from: \(quoted("\(source)"))") }
            if Set(same.map(\.0)).count > 1 { parts.append("target: \(quoted(new.targets[target].name))") }
            var isNumbered = false
            if case .location = new.luns[index].identification { isNumbered = true }
            if let number, !isNumbered { parts.append("lun: \(number.index ?? 0)") }
        }
        if path.settings.role == .standby { parts.append("role: standby") }
        if path.settings.weight != 1 { parts.append("weight: \(path.settings.weight)") }
        return "{" + parts.joined(separator: ", ") + "}"
    }
}
