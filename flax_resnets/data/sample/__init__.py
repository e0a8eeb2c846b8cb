"""The dataset that comes with the package: `fashion_mnist_sample`, a part of Fashion-MNIST."""
