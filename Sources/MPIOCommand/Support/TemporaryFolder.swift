import Foundation

/// A folder that nobody else may look into, for as long as the command runs. Whoever makes it removes it.
struct TemporaryFolder {
    let path: String

    /// Not under `TMPDIR`: a socket may be put into it, whose whole name has room for 107 bytes.
    private static let parent = "/tmp"

    /// Throws where `/tmp` takes none.
    init(prefix: String) throws(CommandFailure) {
        var template = Array("\(Self.parent)/\(prefix)-XXXXXX".utf8CString)
        guard template.withUnsafeMutableBufferPointer({ mkdtemp($0.baseAddress!) != nil }) else {
            throw CommandFailure("\(Self.parent): \(String(cString: strerror(errno)))")
        }
        path = String(decoding: template.dropLast().map { UInt8(bitPattern: $0) }, as: UTF8.self)
    }

    func remove() { try? FileManager.default.removeItem(atPath: path) }
}
