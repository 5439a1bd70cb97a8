import ArgumentParser
import Foundation
import MPIO

/// What shells offer where a LUN or a path is to be named. Asked at each press of Tab: quick, and silent whatever is wrong.
enum Completions {
    /// LUNs that processes hold, and those of the policy file.
    static let luns = CompletionKind.custom { words, _, _ in lunNames(words) }
    /// Paths of the LUNs that the line names; where it names none, of all.
    static let paths = CompletionKind.custom { words, _, _ in pathNames(words) }

    /// LUNs, and files where what was typed begins their names.
    static let lunsAndFiles = CompletionKind.custom { words, _, typed in lunNames(words) + fileNames(typed) }

    /// How long a holder may take. One that answers from memory needs a millisecond.
    private static let holders = Holders(timeout: .milliseconds(200))

    static func lunNames(_ words: [String], holders: Holders = holders) -> [String] {
        let held = holders.report(luns: []).report.luns.map(\.name)
        return offered(held + configured(words))
    }

    static func pathNames(_ words: [String], holders: Holders = holders) -> [String] {
        let held = holders.report(luns: []).report.luns
        let named = held.filter { words.contains($0.name) || $0.identity.map(words.contains) == true }
        return offered((named.isEmpty ? held : named).flatMap(\.paths).map(\.id))
    }

    /// What is in the folder that was typed; folders end with a slash, so that one goes on in them.
    static func fileNames(_ typed: String) -> [String] {
        let slash = typed.lastIndex(of: "/")
        let folder = slash.map { String(typed[...$0]) } ?? ""
        let begin = slash.map { typed[typed.index(after: $0)...] } ?? typed[...]
        let names = (try? FileManager.default.contentsOfDirectory(atPath: folder.isEmpty ? "." : folder)) ?? []
        return offered(names.sorted().filter { $0.hasPrefix(begin) && (!begin.isEmpty || !$0.hasPrefix(".")) }.map { name in
            var status = stat()
            return folder + name + (stat(folder + name, &status) == 0 && status.st_mode & S_IFMT == S_IFDIR ? "/" : "")
        })
    }

    /// The policy file's LUNs, from where the command would read it.
    private static func configured(_ words: [String]) -> [String] {
        var named = words.firstIndex(of: "--config").flatMap { words.indices.contains($0 + 1) ? words[$0 + 1] : nil }
        named = named ?? words.first { $0.hasPrefix("--config=") }.map { String($0.dropFirst("--config=".count)) }
        guard let file = try? Configuration.search(explicit: named), let policy = try? Configuration(contentsOf: file) else { return [] }
        return policy.luns.map(\.name)
    }

    /// Each once, and none that would be more than a word on a line.
    private static func offered(_ names: [String]) -> [String] {
        var seen: Set<String> = []
        let words = names.filter { !$0.isEmpty && HumanText.printable($0) == $0 && seen.insert($0).inserted }
        // zsh takes what follows a colon for an explanation.
        return CompletionShell.requesting == .zsh ? words.map { $0.replacing(":", with: "\\:") } : words
    }
}
