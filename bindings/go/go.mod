module github.com/nsexec/nsexec/bindings/go

go 1.17
