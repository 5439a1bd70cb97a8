import Foundation
import Testing
import TestSupport

@testable import TLS

@Suite struct PreSharedKeysTests {
    private func keys(_ text: String) throws -> PreSharedKeys {
        try Array(text.utf8).withUnsafeBytes { try PreSharedKeys(parsing: $0, path: "keys") }
    }

    private func key(_ keys: PreSharedKeys, _ name: String) -> (bytes: [UInt8], isKnown: Bool) {
        Array(name.utf8).withUnsafeBytes {
            let found = keys.key(of: $0)
            return (Array(found.bytes), found.isKnown)
        }
    }

    static let digits = "000102030405060708090a0b0c0d0e0f"

    @Test func usersHaveTheirKeys() throws {
        let keys = try keys("vm:\(Self.digits)\n\nb:c:FF\(Self.digits)\n#0102ff:\(Self.digits.reversed().map(String.init).joined())")
        #expect(keys.count == 3)
        #expect(key(keys, "vm").bytes == Array(0..<16) && key(keys, "vm").isKnown)
        #expect(key(keys, "b:c").bytes == [255] + Array(0..<16))
        #expect(([1, 2, 255] as [UInt8]).withUnsafeBytes { keys.key(of: $0).isKnown })
        let stranger = key(keys, "eve")
        #expect(!stranger.isKnown && stranger.bytes.count == 32 && stranger.bytes.contains { $0 != 0 })
        #expect(try key(self.keys("vm:\(Self.digits)"), "eve").bytes != stranger.bytes, "of nobody, and no other process")
    }

    @Test(arguments: [
        ("vm", 1, PreSharedKeyError.Mistake.noColon), ("a:\(digits)\n# comment", 2, .noColon), (":\(digits)", 1, .nameLength),
        ("\(String(repeating: "n", count: 129)):\(digits)", 1, .nameLength), ("a\u{0}b:\(digits)", 1, .nameLength),
        ("#xy:\(digits)", 1, .nameIsNoHexadecimal), ("#123:\(digits)", 1, .nameIsNoHexadecimal), ("vm:", 1, .keyLength),
        ("vm:00ff", 1, .keyLength), ("vm:\(digits)0", 1, .keyIsNoHexadecimal), ("vm:\(digits)0g", 1, .keyIsNoHexadecimal),
        ("vm:\(digits)\r", 1, .keyIsNoHexadecimal), ("vm:\(String(repeating: "0", count: 130))", 1, .keyLength),
        ("vm:\(digits)\nvm:\(digits)", 2, .sameNameTwice),
    ])
    func mistakesHaveALineAndNoKey(_ text: String, _ line: Int, _ mistake: PreSharedKeyError.Mistake) {
        let error = #expect(throws: PreSharedKeyError.line(path: "keys", number: line, mistake)) { try keys(text) }
        #expect(error.map { !"\($0)".contains("0102") && "\($0)".hasPrefix("keys:\(line): ") } == true)
    }

    @Test func aFileWithoutKeysIsRefused() {
        #expect(throws: PreSharedKeyError.noKeys(path: "keys")) { try keys("\n\n") }
    }

    /// As the tool writes it, with the mode that it gives.
    @Test func psktoolsFileIsRead() async throws {
        let directory = try TemporaryDirectory("psk")
        let path = directory.file("keys.psk")
        for user in ["vm", "backup"] { try await CommandRunner.require("psktool", ["-u", user, "-p", path]) }
        let keys = try PreSharedKeys(file: path)
        #expect(keys.count == 2 && key(keys, "vm").isKnown && key(keys, "vm").bytes.count == 32)
        let text = try String(contentsOfFile: path, encoding: .utf8)
        #expect(text.contains("vm:" + key(keys, "vm").bytes.map { String(format: "%02x", $0) }.joined()))
    }

    @Test(arguments: [0o640, 0o604, 0o660, 0o777, 0o610] as [mode_t])
    func whatOthersCanReadIsRefused(_ mode: mode_t) throws {
        let directory = try TemporaryDirectory("psk")
        let path = try directory.file("keys.psk", contents: Array("vm:\(Self.digits)\n".utf8))
        #expect(chmod(path, mode) == 0)
        let error = #expect(throws: PreSharedKeyError.openToOthers(path: path, mode: mode)) { try PreSharedKeys(file: path) }
        #expect(error.map { "\($0)".contains("chmod 600 \(path)") } == true)
        #expect(chmod(path, 0o400) == 0)
        #expect(try PreSharedKeys(file: path).count == 1)
    }

    @Test func whatIsNoFileOfKeysIsRefused() throws {
        let directory = try TemporaryDirectory("psk")
        #expect(throws: PreSharedKeyError.cannotRead(path: directory.file("none"), code: ENOENT)) { try PreSharedKeys(file: directory.file("none")) }
        #expect(throws: PreSharedKeyError.notAFile(path: directory.path)) { try PreSharedKeys(file: directory.path) }
        let pipe = directory.file("pipe")
        #expect(mkfifo(pipe, 0o600) == 0)
        #expect(throws: PreSharedKeyError.notAFile(path: pipe)) { try PreSharedKeys(file: pipe) }
        let empty = try directory.file("empty", contents: [])
        #expect(chmod(empty, 0o600) == 0)
        #expect(throws: PreSharedKeyError.noKeys(path: empty)) { try PreSharedKeys(file: empty) }
        let large = try directory.file("large", contents: [UInt8](repeating: 0x0A, count: (1 << 20) + 1))
        #expect(chmod(large, 0o600) == 0)
        #expect(throws: PreSharedKeyError.tooLarge(path: large)) { try PreSharedKeys(file: large) }
    }

    @Test(.enabled(if: Privileges.canBecomeOthers, "only root can give a file to somebody else"))
    func anotherUsersFileIsRefused() throws {
        let directory = try TemporaryDirectory("psk")
        let foreign = try directory.file("foreign", contents: Array("vm:\(Self.digits)\n".utf8))
        #expect(chmod(foreign, 0o600) == 0 && chown(foreign, 65_534, 65_534) == 0)
        #expect(throws: PreSharedKeyError.foreignOwner(path: foreign, user: 65_534)) { try PreSharedKeys(file: foreign) }
    }
}
