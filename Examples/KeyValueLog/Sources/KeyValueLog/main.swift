import Foundation
import MPIO

let usage = """
    usage: KeyValueLog LUN create | put KEY VALUE | get KEY | delete KEY | list | compact | fill COUNT

    """

do {
    let words = Array(CommandLine.arguments.dropFirst())
    guard words.count >= 2 else { throw UsageError() }
    let manager = try await PathManager(configuration: Configuration(contentsOf: "mpio.yaml"))
    do {
        try await run(words[1], Array(words.dropFirst(2)), on: manager.open(words[0]))
    } catch {
        try? await manager.shutdown()
        throw error
    }
    try await manager.shutdown()
} catch is UsageError {
    FileHandle.standardError.write(Data(usage.utf8))
    exit(64)
} catch {
    FileHandle.standardError.write(Data("KeyValueLog: \(error)\n".utf8))
    exit(1)
}

func run(_ command: String, _ arguments: [String], on disk: MultipathDisk) async throws {
    if command == "create" {
        _ = try await KeyValueLog.create(on: disk)
        return
    }
    let log = try await KeyValueLog.open(disk)
    switch (command, arguments.count) {
    case ("put", 2): try await log.put(Array(arguments[1].utf8), for: arguments[0])
    case ("get", 1):
        guard let value = try await log.value(for: arguments[0]) else { throw NoSuchKey(key: arguments[0]) }
        print(String(decoding: value, as: UTF8.self))
    case ("delete", 1): try await log.delete(arguments[0])
    case ("list", 0): for key in log.keys { print(key) }
    case ("compact", 0):
        let before = log.usage.used
        try await log.compact()
        print("\(before) bytes before, \(log.usage.used) now, of \(log.usage.available)")
    case ("fill", 1):
        guard let count = Int(arguments[0]) else { throw UsageError() }
        // A key is printed once it is safe: whatever happens to this process, it is in the log.
        for number in 0..<count {
            try await log.put(Array("value \(number)".utf8), for: "key-\(number)")
            FileHandle.standardOutput.write(Data("key-\(number)\n".utf8))
        }
    default: throw UsageError()
    }
}

struct UsageError: Error {}

struct NoSuchKey: Error, CustomStringConvertible {
    var key: String
    var description: String { "there is no key '\(key)'" }
}
