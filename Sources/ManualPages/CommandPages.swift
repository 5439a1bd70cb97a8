import Foundation

/// The pages of section 1, from the command's own help.
struct CommandPages {
    var root: HelpCommand
    /// Status and meaning, as the README has them.
    var exitStatuses: [(status: String, meaning: String)]
    var date: Date

    /// Names of files and their text: a page for `mpio`, one for each subcommand.
    func pages() -> [(file: String, text: String)] {
        [("\(root.commandName).1", overview())] + root.shownSubcommands.map { ("\(Self.pageName($0)).1", page($0)) }
    }

    private static func pageName(_ command: HelpCommand) -> String { command.fullName.replacing(" ", with: "-") }

    // MARK: mpio(1)

    private func overview() -> String {
        var page = Mdoc()
        page.begin(name: root.commandName, section: 1, date: date)
        Self.name(root, in: &page)
        page.section("Synopsis")
        page.macro("Nm \(root.commandName)")
        page.macro("Ar command")
        page.macro("Op Ar argument ...")
        describe(root, in: &page)
        page.section("Commands")
        page.macro("Bl -tag -width \"mpio-discover(1)\"")
        for command in root.shownSubcommands {
            page.macro("It Xr \(Self.pageName(command)) 1")
            page.paragraph(command.abstract ?? "", isFirst: true)
        }
        page.macro("El")
        exitStatus(&page)
        Self.environment(&page)
        Self.files(&page)
        examples(root, in: &page)
        page.section("See also")
        let names = root.shownSubcommands.map { Self.pageName($0) }
        for name in names { page.macro("Xr \(name) 1 ,") }
        page.macro("Xr mpio.yaml 5")
        return page.text
    }

    private func exitStatus(_ page: inout Mdoc) {
        page.section("Exit status")
        page.macro("Bl -tag -width 130 -compact")
        for (status, meaning) in exitStatuses {
            page.macro("It \(status)")
            page.paragraph(meaning, isFirst: true, markup: true)
        }
        page.macro("El")
    }

    private static let variables: [(name: String, meaning: String)] = [
        ("MPIO_CONFIG", "The policy file, where --config does not name one."),
        ("XDG_CONFIG_HOME", "Where mpio/mpio.yaml is looked for; ~/.config by default."),
        ("XDG_RUNTIME_DIR", "Control sockets and leases of ISIDs are in its folder mpio; root's are in /run/mpio where it is not set."),
        ("NO_COLOR", "No colour on a terminal, if set and not empty. TERM=dumb does the same."),
    ]

    private static func environment(_ page: inout Mdoc) {
        page.section("Environment")
        page.macro("Bl -tag -width XDG_RUNTIME_DIR")
        for (name, meaning) in variables {
            page.macro("It Ev \(name)")
            page.paragraph(meaning, isFirst: true)
        }
        page.macro("El")
    }

    private static let places: [(name: String, meaning: String)] = [
        ("./mpio.yaml", "The policy file: the first of these three that there is; see mpio.yaml(5)."),
        ("~/.config/mpio/mpio.yaml", ""), ("/etc/mpio/mpio.yaml", ""),
        ("$XDG_RUNTIME_DIR/mpio/, /run/mpio/, /tmp/mpio-UID/", "Control sockets of the processes that hold LUNs, and leases of ISIDs; their owner's alone."),
        ("/etc/iscsi/initiatorname.iscsi", "The initiator's name, where the policy file has none."),
    ]

    private static func files(_ page: inout Mdoc) {
        page.section("Files")
        page.macro("Bl -tag -width Ds -compact")
        for (name, meaning) in places {
            page.macro("It Pa \(Mdoc.argument(name))")
            if !meaning.isEmpty { page.paragraph(meaning, isFirst: true) }
        }
        page.macro("El")
    }

    // MARK: mpio-SUBCOMMAND(1)

    private func page(_ command: HelpCommand) -> String {
        var page = Mdoc()
        page.begin(name: Self.pageName(command), section: 1, date: date)
        Self.name(command, in: &page)
        page.section("Synopsis")
        let forms = command.runnable
        for form in forms { Self.synopsis(form, in: &page) }
        describe(command, in: &page)
        options(command, in: &page, section: true)
        let nested = command.shownSubcommands.flatMap(\.withSubcommands)
        if !nested.isEmpty { page.section("Subcommands") }
        for form in nested {
            page.subsection(form.fullName)
            page.paragraph(form.abstract ?? "", isFirst: true)
            for part in Self.parts(form.discussion) where !part.isExample { Self.write(part, isFirst: false, in: &page) }
            options(form, in: &page, section: false)
        }
        page.section("Exit status")
        page.paragraph("As of every command; see mpio(1).", isFirst: true)
        examples(command, in: &page)
        page.section("See also")
        page.macro("Xr mpio 1 ,")
        page.macro("Xr mpio.yaml 5")
        return page.text
    }

    private static func name(_ command: HelpCommand, in page: inout Mdoc) {
        page.section("Name")
        page.macro("Nm \(pageName(command))")
        var abstract = command.abstract ?? ""
        if abstract.hasSuffix(".") { abstract.removeLast() }
        page.macro("Nd \(Mdoc.escaped(abstract))")
    }

    private static func synopsis(_ command: HelpCommand, in page: inout Mdoc) {
        page.macro("Nm \(command.fullName)")
        for argument in command.shownArguments where !argument.isCommon { page.macro(synopsis(argument)) }
    }

    private static func synopsis(_ argument: HelpArgument) -> String {
        let name = argument.names?.last?.spelled.dropFirst() ?? ""
        let value = argument.shownValue + (argument.isRepeating ? " ..." : "")
        let isOptional = argument.isOptional
        switch argument.kind {
        case .positional: return (isOptional ? "Op " : "") + "Ar \(value)"
        case .flag: return "Op Fl \(name)"
        case .option where argument.hasOptionalValue: return "Op Fl \(name) Ns Op Ns = Ns Ar \(value)"
        case .option: return (isOptional ? "Op " : "") + "Fl \(name) Ar \(value)"
        }
    }

    private func describe(_ command: HelpCommand, in page: inout Mdoc) {
        page.section("Description")
        page.paragraph(command.abstract ?? "", isFirst: true)
        for part in Self.parts(command.discussion) where !part.isExample { Self.write(part, isFirst: false, in: &page) }
    }

    private func options(_ command: HelpCommand, in page: inout Mdoc, section: Bool) {
        let shown = command.shownArguments.filter { !$0.isCommon }
        guard !shown.isEmpty else { return }
        if section { page.section("Options") }
        page.macro("Bl -tag -width Ds")
        for argument in shown {
            switch argument.kind {
            case .positional: page.macro("It Ar \(argument.shownValue)" + (argument.isRepeating ? " ..." : ""))
            case .flag: page.macro("It " + (argument.names ?? []).map { "Fl \($0.spelled.dropFirst())" }.joined(separator: " , "))
            case .option:
                let name = "It Fl \(argument.names?.last?.spelled.dropFirst() ?? "")"
                let value = argument.shownValue
                page.macro(argument.hasOptionalValue ? "\(name) Ns Op Ns = Ns Ar \(value)" : "\(name) Ar \(value)")
            }
            var text = argument.abstract ?? ""
            if let value = argument.defaultValue { text += argument.hasOptionalValue ? " Without a value: \(value)." : " Default: \(value)." }
            page.paragraph(text.isEmpty ? "As its name says." : text, isFirst: true)
        }
        page.macro("El")
    }

    private func examples(_ command: HelpCommand, in page: inout Mdoc) {
        let all = (command.commandName == root.commandName ? [command] : command.withSubcommands)
            .flatMap { Self.parts($0.discussion) }.filter(\.isExample)
        guard !all.isEmpty else { return }
        page.section("Examples")
        var isFirst = true
        for part in all {
            if let heading = part.heading, heading != "Example:", heading != "Examples:" {
                page.paragraph(heading, isFirst: isFirst)
                isFirst = false
            }
            page.literal(part.lines)
            isFirst = false
        }
    }

    // MARK: The discussion's parts

    /// A paragraph of a help text: filled text, lines that are shown as they are, or both.
    struct Part: Equatable {
        var heading: String?
        var lines: [String]
        var isExample: Bool { heading?.hasPrefix("Example") == true && !lines.isEmpty }
    }

    static func parts(_ discussion: String?) -> [Part] {
        (discussion ?? "").split(separator: "\n\n").map { paragraph in
            let lines = paragraph.split(separator: "\n").map(String.init)
            let text = lines.prefix { !$0.hasPrefix("  ") }
            let shown = lines.dropFirst(text.count).map { $0.hasPrefix("  ") ? String($0.dropFirst(2)) : $0 }
            return Part(heading: text.isEmpty ? nil : text.joined(separator: "\n"), lines: shown)
        }
    }

    private static func write(_ part: Part, isFirst: Bool, in page: inout Mdoc) {
        if let heading = part.heading {
            // A text's lines that are no sentence's end go on; the others are paragraphs' ends in the terminal's help.
            page.paragraph(heading, isFirst: isFirst)
        }
        if !part.lines.isEmpty { page.literal(part.lines) }
    }
}
