import ArgumentParser
import Foundation
import MPIO

struct WriteCommand: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "write",
        abstract: "Write standard input or a file to the blocks of a LUN.",
        discussion: """
            Overwrites what is there. Where the input ends within a block, the rest of that block is kept. When the command \
            ends with status 0, all of it is on stable storage.

            Example:
              mpio write vm-store --offset 1M --input image.raw
            """)

    @Argument(help: "The LUN's name or identity.", completion: Completions.luns)
    var lun: String

    @Option(help: ArgumentHelp("Where to begin, in bytes; a multiple of the LUN's block size.", valueName: "size"))
    var offset = ByteSize(0)

    @Option(name: [.short, .long], help: ArgumentHelp("Read from this file instead of standard input.", valueName: "file"), completion: .file())
    var input: String?

    @OptionGroup var policyFile: PolicyFileOptions

    func run() async throws {
        let command = self
        let policy = try policyFile.load()
        let name = try policy.lunName(lun)
        // Before any login: a name that is wrong should cost nothing.
        var descriptor = STDIN_FILENO
        if let input {
            descriptor = open(input, O_RDONLY | O_CLOEXEC)
            guard descriptor >= 0 else { throw CommandFailure("\(input): \(String(cString: strerror(errno)))") }
        }
        let source = descriptor
        defer { if input != nil { close(source) } }
        try await cancelledByInterrupt {
            try await withManager(policy, subcommand: "write") { manager in
                try await command.write(source, to: DiskStore(disk: try await manager.open(name)))
            }
        }
    }

    private func write(_ descriptor: Int32, to store: DiskStore) async throws {
        try store.check(offset: offset.byteCount, byteCount: 0)
        var status = stat()
        let isFile = fstat(descriptor, &status) == 0 && status.st_mode & S_IFMT == S_IFREG
        if isFile, UInt64(status.st_size) > store.byteCount - offset.byteCount {
            throw CommandFailure("\(input ?? "the input") (\(HumanText.size(UInt64(status.st_size)))) does not fit into \(store.name)")
        }
        let line = isFile ? ProgressLine(total: UInt64(status.st_size)) : nil
        defer { line?.finish() }
        _ = try await BlockStream(store: store).write(from: descriptor, at: offset.byteCount) { line?.update($0) }
    }
}
