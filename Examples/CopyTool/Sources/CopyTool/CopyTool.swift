import Foundation
import MPIO

/// `CopyTool SOURCE DESTINATION`: file to LUN, LUN to file, LUN to LUN.
@main
struct CopyTool {
    static func main() async {
        do {
            try await run(Arguments(CommandLine.arguments.dropFirst()))
        } catch let usage as UsageError {
            fail("\(usage)\n\(Arguments.usage)", status: 64)
        } catch {
            fail("\(error)", status: 1)
        }
    }

    private static func run(_ arguments: Arguments) async throws {
        let configuration = try Configuration(contentsOf: arguments.configurationFile)
        let manager = try await PathManager(configuration: configuration)
        do {
            try await copy(arguments, manager)
        } catch {
            // What went wrong first is what the user needs to know.
            try? await manager.shutdown()
            throw error
        }
        try await manager.shutdown()
    }

    private static func copy(_ arguments: Arguments, _ manager: PathManager) async throws {
        let source = try await arguments.source.openForReading(manager)
        let destination = try await arguments.destination.openForWriting(manager, byteCount: source.byteCount)
        let copy = try Copy(from: source, to: destination, piecesAtOnce: arguments.depth)

        try await copy.run(progress: ProgressLine("copying", byteCount: copy.byteCount))
        guard arguments.verifies else { return }
        if let offset = try await copy.firstDifference(progress: ProgressLine("verifying", byteCount: copy.byteCount)) {
            throw Mismatch(offset: offset)
        }
        print("verified")
    }

    private static func fail(_ words: String, status: Int32) -> Never {
        FileHandle.standardError.write(Data("CopyTool: \(words)\n".utf8))
        exit(status)
    }
}

/// The copy is not what was copied.
struct Mismatch: Error, CustomStringConvertible {
    var offset: UInt64
    var description: String { "source and destination differ at byte \(offset)" }
}
