import ArgumentParser
import Foundation
import MPIO

struct ReadCommand: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "read",
        abstract: "Read blocks of a LUN to standard output or a file.",
        discussion: """
            Sizes take k, M, G, T (binary) and are multiples of the LUN's block size.

            Examples:
              mpio read vm-store --offset 1M --length 4k | xxd | head
              mpio read vm-store --output backup.img
            """)

    @Argument(help: "The LUN's name or identity.", completion: Completions.luns)
    var lun: String

    @Option(help: ArgumentHelp("Where to begin, in bytes.", valueName: "size"))
    var offset = ByteSize(0)

    @Option(help: ArgumentHelp("How much; to the end of the LUN where left out.", valueName: "size"))
    var length: ByteSize?

    @Option(name: [.short, .long], help: ArgumentHelp("Write to this file instead of standard output.", valueName: "file"), completion: .file())
    var output: String?

    @OptionGroup var policyFile: PolicyFileOptions

    func run() async throws {
        if output == nil, StandardOutput.isTerminal {
            throw CommandFailure("blocks are no text for a terminal: use --output, or a pipe", status: ExitStatus.usage)
        }
        let command = self
        let policy = try policyFile.load()
        let name = try policy.lunName(lun)
        try await cancelledByInterrupt {
            try await withManager(policy, subcommand: "read") { manager in
                try await command.read(DiskStore(disk: try await manager.open(name)))
            }
        }
    }

    private func read(_ store: DiskStore) async throws {
        let count = length?.byteCount ?? (store.byteCount - min(store.byteCount, offset.byteCount))
        try store.check(offset: offset.byteCount, byteCount: count)
        var descriptor = STDOUT_FILENO
        if let output {
            descriptor = open(output, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0o644)
            guard descriptor >= 0 else { throw CommandFailure("\(output): \(String(cString: strerror(errno)))") }
        }
        defer { if output != nil { close(descriptor) } }
        let line = ProgressLine(total: count)
        defer { line.finish() }
        try await BlockStream(store: store).read(from: offset.byteCount, byteCount: count, to: descriptor) { line.update($0) }
    }
}
