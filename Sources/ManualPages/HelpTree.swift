import Foundation

// What `mpio --experimental-dump-help` prints, as far as manual pages need it.

struct HelpTree: Decodable {
    var command: HelpCommand
}

struct HelpCommand: Decodable {
    var commandName: String
    var abstract: String?
    var discussion: String?
    var arguments: [HelpArgument]?
    var subcommands: [HelpCommand]?
    var superCommands: [String]?
    var shouldDisplay: Bool?

    /// `mpio path fail`
    var fullName: String { ((superCommands ?? []) + [commandName]).joined(separator: " ") }
    var shownArguments: [HelpArgument] { (arguments ?? []).filter { $0.shouldDisplay ?? true } }
    /// This one and all below it.
    var withSubcommands: [HelpCommand] { [self] + shownSubcommands.flatMap(\.withSubcommands) }
    /// Of these, those that do something themselves.
    var runnable: [HelpCommand] {
        withSubcommands.filter { $0.shownSubcommands.isEmpty || $0.shownArguments.contains { !$0.isCommon } }
    }
    /// Without the parser's own `help`.
    var shownSubcommands: [HelpCommand] { (subcommands ?? []).filter { $0.commandName != "help" && $0.shouldDisplay ?? true } }
}

struct HelpArgument: Decodable {
    enum Kind: String, Decodable {
        case positional, option, flag
    }

    struct Name: Decodable {
        enum Kind: String, Decodable {
            case long, short, longWithSingleDash
        }

        var kind: Kind
        var name: String

        /// `--config`, `-h`
        var spelled: String { (kind == .long ? "--" : "-") + name }
    }

    var kind: Kind
    var names: [Name]?
    var valueName: String?
    var defaultValue: String?
    var abstract: String?
    var isOptional: Bool
    var isRepeating: Bool
    var parsingStrategy: String?
    var shouldDisplay: Bool?

    /// What stands for the value, as one argument of a macro.
    var shownValue: String {
        let value = Mdoc.escaped(valueName ?? "value")
        return value.contains(" ") ? "\"\(value)\"" : value
    }
    /// An option that may be given without its value.
    var hasOptionalValue: Bool { kind == .option && parsingStrategy == "scanningForValue" }
    /// Those that every command has.
    var isCommon: Bool { kind == .flag && ["help", "version"].contains(names?.last?.name) }
}
